"""Things that belong together, transitively."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class UnionFind(Generic[Item]):
    """With path halving; an item nobody has named yet stands alone."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._parent: dict[Item, Item] = {item: item for item in items}

    def root(self, item: Item) -> Item:
        """The same for all items that are joined."""
        parent = self._parent
        parent.setdefault(item, item)
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, items: Iterable[Item]) -> None:
        first, *others = items
        for other in others:
            self._parent[self.root(other)] = self.root(first)

    def groups(self) -> list[list[Item]]:
        """Every item once, in the order in which items were first named."""
        groups: dict[Item, list[Item]] = {}
        for item in list(self._parent):
            groups.setdefault(self.root(item), []).append(item)
        return list(groups.values())

"""From a model's reply to JSON, as far as there is any."""

from __future__ import annotations

import re
from typing import Any

from pipeline.llm import THOUGHT_ENDS, parse_object, value_at

__all__ = ["list_in_reply", "parse_object", "salvage_items"]
_BETWEEN_ITEMS = re.compile(r"[ \t\r\n,]*")


def salvage_items(text: str, name: str) -> list[Any]:
    """The whole items of the list `name` in a reply that broke off in the middle."""
    text = text.rpartition(THOUGHT_ENDS)[2]
    opening = re.search(rf'"{re.escape(name)}"\s*:\s*\[', text)
    if not opening:
        return []
    items: list[Any] = []
    position = opening.end()
    while True:
        found = value_at(text, _BETWEEN_ITEMS.match(text, position).end())
        if found is None:
            return items
        item, position = found
        items.append(item)


def list_in_reply(text: str, name: str) -> tuple[list[Any], bool]:
    """(items of the list `name`, whether the reply was whole)."""
    value = parse_object(text)
    if value is not None and isinstance(value.get(name), list):
        return value[name], True
    return salvage_items(text, name), False

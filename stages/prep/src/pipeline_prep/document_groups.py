"""Which documents belong together and therefore on one side of the split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.records.passages import Passage
from pipeline_prep.duplicates import LONG, near_duplicate_pairs, words
from pipeline_prep.union_find import UnionFind

Tie = tuple[str, ...]

BOILERPLATE_SHARE = 0.1
BOILERPLATE_DOCUMENTS = 3
"""A passage that returns, nearly the same, in more documents than both of these is boilerplate and joins none."""


@dataclass(frozen=True)
class NearTies:
    """Documents joined because their texts are nearly the same, and what was found on the way.

    `boilerplate` counts groups of near-duplicate passages that stand in too many documents to mean anything.
    """

    ties: list[Tie] = field(default_factory=list)
    documents: int = 0
    passages: int = 0
    boilerplate: int = 0


def document_groups(documents: Iterable[str], ties: Iterable[Sequence[str]]) -> list[list[str]]:
    """Documents joined by ties (shared passages, bundles), transitively; sorted, whatever the order of the input."""
    union = UnionFind(documents)
    for tie in ties:
        union.join(tie)
    return sorted(sorted(group) for group in union.groups())


def document_texts(passages: Iterable[Passage], documents: set[str]) -> dict[str, str]:
    """The text of each of these documents: its passages one after the other; documents in sorted order."""
    parts: dict[str, list[str]] = {name: [] for name in sorted(documents)}
    for passage in passages:
        for name in passage.documents:
            if name in parts:
                parts[name].append(passage.text)
    return {name: "\n".join(texts) for name, texts in parts.items() if texts}


def near_duplicate_ties(passages: Sequence[Passage], documents: set[str], threshold: float) -> NearTies:
    """Ties between `documents` whose whole text, or one of whose longer passages, is nearly the same.

    Passages of fewer than `LONG` words join no documents: headings and stock phrases are alike everywhere. Passages
    that are equal word for word are not looked at: they are ties of their own, always.
    """
    texts = document_texts(passages, documents)
    names = list(texts)
    whole = [(names[i], names[j]) for i, j in near_duplicate_pairs(list(texts.values()), threshold)]
    joined = len({name for pair in whole for name in pair})
    inside = [passage for passage in passages if not documents.isdisjoint(passage.documents)]
    if len(inside) == len(names) and all(len(item.documents) == 1 for item in inside):
        # One passage each, shared with nobody: the documents are the passages.
        return NearTies(whole, joined)
    inside = sorted((item for item in inside if len(words(item.text)) >= LONG), key=lambda item: item.id)
    alike = UnionFind[int]()
    for pair in near_duplicate_pairs([item.text for item in inside], threshold):
        alike.join(pair)
    groups = alike.groups()
    most = max(BOILERPLATE_DOCUMENTS, BOILERPLATE_SHARE * len(names))
    held = [tuple(sorted({name for number in group for name in inside[number].documents})) for group in groups]
    ties = [tie for tie in held if len(tie) <= most]
    passages_joined = sum(len(group) for group, tie in zip(groups, held, strict=True) if len(tie) <= most)
    return NearTies(whole + ties, joined, passages_joined, len(held) - len(ties))

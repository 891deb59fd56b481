"""Split by document, so that no document, no passage text and no question stands on two sides."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.errors import PipelineError
from pipeline_prep.questions import Converted, Question
from pipeline_prep.funnel import Funnel

SPLITS = ("train", "val", "test")
Ratios = dict[str, float]
"""Split -> share of the documents; shares sum to 1 within a tolerance."""


def split_questions(converted: Converted, ratios: Ratios, seed: int, funnel: Funnel) -> dict[str, list[Question]]:
    """The questions of each split; identical ones are merged.

    Raises:
        PipelineError: a requested split would get no question; says how many documents are needed.
    """
    asked_of = {document for question in converted.questions for document in question.documents}
    # All documents join the groups, also those without questions: A may share a passage with B only by way of one.
    groups = [[name for name in group if name in asked_of] for group in document_groups(asked_of, converted.ties)]
    groups = [group for group in groups if group]
    split_of = assign(groups, ratios, seed)
    splits = _merge_identical(converted.questions, split_of, funnel)
    for name in SPLITS:
        if ratios[name] > 0 and not splits[name]:
            raise PipelineError(
                f"the {name} split has no question left: every one of its questions is also asked in another split",
                fix=f"add documents, or set another seed, or set {name}_ratio=0",
            )
    sizes = ", ".join(f"{name} {len(splits[name]):,}" for name in SPLITS)
    documents = ", ".join(f"{name} {sum(1 for side in split_of.values() if side == name):,}" for name in SPLITS)
    funnel.close("split", sum(map(len, splits.values())), f"{sizes}   documents: {documents}, groups: {len(groups):,}")
    return splits


def document_groups(documents: Iterable[str], ties: Iterable[Sequence[str]]) -> list[list[str]]:
    """Documents joined by ties (shared passages, bundles), transitively; sorted, whatever the order of the input."""
    parent = {name: name for name in documents}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for first, *others in ties:
        for other in others:
            parent[root(other)] = root(first)
    groups: dict[str, list[str]] = {}
    for name in sorted(parent):
        groups.setdefault(root(name), []).append(name)
    return sorted(groups.values())


def assign(groups: Sequence[list[str]], ratios: Ratios, seed: int) -> dict[str, str]:
    """Document -> split. Shares are met by largest remainder; every split with a ratio gets at least one group.

    Large groups are placed first, each where most room is left; single documents then fill the shares exactly.

    Raises:
        PipelineError: fewer groups than splits.
    """
    requested = [name for name in SPLITS if ratios[name] > 0]
    total = sum(len(group) for group in groups)
    if len(groups) < len(requested):
        shared = f" ({total} documents, joined where they share a passage)" if total > len(groups) else ""
        fewer = f", or give up a split: val_ratio=0 train_ratio={ratios['train'] + ratios['val']:g}"
        raise PipelineError(
            f"{len(groups)} independent documents with questions{shared} cannot fill {', '.join(requested)}: "
            f"at least {len(requested)} are needed",
            fix=f"add documents, or lower quality_threshold{fewer if 'val' in requested else ''}",
        )
    room = _shares(total, ratios, requested)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    order.sort(key=len, reverse=True)
    split_of: dict[str, str] = {}
    empty = list(requested)
    for position, group in enumerate(order):
        # As many groups left as empty splits: from here on they are promised to these.
        among = empty if len(order) - position <= len(empty) else requested
        chosen = max(among, key=lambda name: room[name])
        room[chosen] -= len(group)
        empty = [name for name in empty if name != chosen]
        split_of.update(dict.fromkeys(group, chosen))
    return split_of


def _shares(total: int, ratios: Ratios, requested: list[str]) -> dict[str, int]:
    """Whole numbers that sum to `total`, at least 1 each (needs total >= len(requested))."""
    exact = {name: total * ratios[name] / sum(ratios.values()) for name in requested}
    shares = {name: int(value) for name, value in exact.items()}
    # Rounded, so that equal remainders stay equal in floating point: train first, then val, then test.
    by_remainder = sorted(requested, key=lambda name: round(shares[name] - exact[name], 9))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    for name in requested:
        if not shares[name]:
            shares[max(shares, key=lambda other: shares[other])] -= 1
            shares[name] = 1
    return shares


def _merge_identical(questions: list[Question], split_of: dict[str, str], funnel: Funnel) -> dict[str, list[Question]]:
    """One question for each distinct text, with the positives of all its documents.

    Whoever asks such a question may be served by any of these passages, so keeping them apart would call right answers
    wrong. Where the documents fell into different splits the question is dropped from all: it would either stand on
    both sides or count an answer as wrong. Joining the documents instead would let a single vague question tie a whole
    corpus together.
    """
    same: dict[str, list[Question]] = {}
    for question in questions:
        same.setdefault(question.key, []).append(question)
    splits: dict[str, list[Question]] = {name: [] for name in SPLITS}
    for group in same.values():
        sides = sorted({split_of[question.documents[0]] for question in group})
        if len(sides) > 1:
            for question in group:
                funnel.reject("asked in two splits", question.where, question.text, " and ".join(sides))
            continue
        for question in group[1:]:
            funnel.reject("identical question, merged", question.where, question.text, f"into {group[0].id}")
        splits[sides[0]].append(_merged(group))
    return splits


def _merged(group: list[Question]) -> Question:
    if len(group) == 1:
        return group[0]
    documents = tuple(dict.fromkeys(name for question in group for name in question.documents))
    positives = tuple(dict.fromkeys(key for question in group for key in question.positives))
    metadata = {**group[0].metadata, "file_name": list(documents)}
    return replace(group[0], documents=documents, positives=positives, metadata=metadata)

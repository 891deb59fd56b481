"""Where a difference between two systems comes from: kinds of questions, and single questions with their texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import numpy as np

from pipeline.records.beir import TestSet
from pipeline.records.results import QueryScores, read_query_scores
from pipeline.run.files import read_jsonl
from pipeline_eval.statistics import compare

FIELDS = ("query_type", "reasoning_type", "hop_count", "question_complexity", "query_style")
"""What sdg notes about a question; each that a test set knows gives a table."""
LENGTH, DOCUMENT = "number of words", "document"
"""The two groupings that every test set has."""
REST, UNKNOWN = "(all others)", "(not given)"

EXCERPT = 200
"""Characters shown of a passage."""
Groups = dict[str, list[str]]
"""Name of a group -> ids of its questions."""

_LENGTHS = ((1, 5), (6, 10), (11, 20))
_ENOUGH = 10
"""Questions a group needs for an interval."""
_MOST = 10
"""Groups shown of one grouping; the others are taken together."""


@dataclass(frozen=True)
class Row:
    """One group of questions: means of both systems, and how much higher b scores.

    `ci95` is None for fewer than ten questions. It is one of many: of twenty of them one leaves out 0 by luck.
    """

    by: str
    group: str
    questions: int
    a: float
    b: float
    delta: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Found:
    """A passage as a person recognises it: where it comes from, how it begins. `grade` 0: not judged to be right."""

    passage: str
    grade: int
    documents: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Extreme:
    """A question on which the systems differ much.

    `relevant` is its best judged passage; `first_a` and `first_b` what the systems ranked first, None if nothing.
    """

    question: str
    text: str
    a: float
    b: float
    delta: float
    relevant: Found
    first_a: Found | None
    first_b: Found | None


@dataclass(frozen=True)
class Breakdown:
    """Two systems on one test set: groups of questions, and those with the largest gains and losses of b over a."""

    test_set: str
    a: str
    b: str
    metric: str
    questions: int
    rows: list[Row]
    gains: list[Extreme]
    losses: list[Extreme]


def explain(
    test_set: TestSet, score_files: dict[str, Path], a: str, b: str, metric: str, samples: int = 2000, seed: int = 42
) -> Breakdown:
    """Break the difference between the systems `a` and `b` down.

    Args:
        score_files: system -> its file of per-question scores (`write_query_scores`).
    """
    scores = {system: read_query_scores(score_files[system]) for system in (a, b)}
    firsts = {system: first_passages(score_files[system]) for system in (a, b)}
    rows = breakdown(test_set, scores, a, b, metric, samples, seed)
    gains, losses = extremes(test_set, scores, firsts, a, b, metric)
    return Breakdown(test_set.name, a, b, metric, len(test_set.queries), rows, gains, losses)


def breakdown(
    test_set: TestSet,
    scores: dict[str, QueryScores],
    a: str,
    b: str,
    metric: str,
    samples: int = 2000,
    seed: int = 42,
) -> list[Row]:
    """Means of both systems over groups of questions: by what sdg notes about them, by length, by document.

    A question about several documents counts in the group of each. A grouping that puts all questions into one group
    is left out.

    Args:
        scores: system -> per-question scores.
        samples, seed: of the bootstrap, for the intervals.
    """
    rows = []
    for by, groups in _groupings(test_set):
        for group, queries in groups.items():
            before, after = (np.array([scores[name][query][metric] for query in queries]) for name in (a, b))
            enough = len(queries) >= _ENOUGH
            low_high = compare(before[:, None], after[:, None], samples, seed)[0].ci95 if enough else None
            means = (round(float(values.mean()), 6) for values in (before, after, after - before))
            rows.append(Row(by, group, len(queries), *means, low_high))
    return rows


def extremes(
    test_set: TestSet,
    scores: dict[str, QueryScores],
    firsts: dict[str, dict[str, str]],
    a: str,
    b: str,
    metric: str,
    count: int = 10,
) -> tuple[list[Extreme], list[Extreme]]:
    """The questions with the largest gains and with the largest losses of b over a, the largest first.

    Args:
        firsts: system -> question id -> the passage ranked first (`first_passages`).
    """

    def extreme(query: str) -> Extreme:
        judged = test_set.qrels[query]
        return Extreme(
            query,
            test_set.queries[query],
            scores[a][query][metric],
            scores[b][query][metric],
            round(delta[query], 6),
            _found(test_set, query, max(judged, key=lambda passage: judged[passage])),
            *(_found(test_set, query, firsts[name][query]) if query in firsts[name] else None for name in (a, b)),
        )

    delta = {query: scores[b][query][metric] - scores[a][query][metric] for query in test_set.queries}
    ordered = sorted(delta, key=lambda query: (-delta[query], query))
    gains = [query for query in ordered[:count] if delta[query] > 0]
    losses = [query for query in reversed(ordered[-count:]) if delta[query] < 0]
    return [extreme(query) for query in gains], [extreme(query) for query in losses]


def first_passages(path: Path) -> dict[str, str]:
    """Question id -> the passage ranked first, from a file of per-question scores; no entry if there was none."""
    return {row["query_id"]: row["top"][0][0] for _, row in read_jsonl(path) if row["top"]}


def _groupings(test_set: TestSet) -> Iterator[tuple[str, Groups]]:
    """What questions are grouped by, and the groups; only groupings that tell questions apart."""
    known = [field for field in FIELDS if any(item.get(field) is not None for item in test_set.metadata.values())]
    groups_of: dict[str, Callable[[str], Iterable[str]]] = {
        **{field: partial(_value, test_set, field) for field in known},
        LENGTH: lambda query: [_length(test_set.queries[query])],
        DOCUMENT: partial(_documents, test_set),
    }
    for by, names_of in groups_of.items():
        groups: Groups = {}
        for query in test_set.queries:
            for name in names_of(query):
                groups.setdefault(name, []).append(query)
        if len(shown := _largest(groups)) > 1:
            yield by, shown


def _largest(groups: Groups) -> Groups:
    """The ten largest groups in the order of their names, and all other questions as one more."""
    largest = sorted(groups, key=lambda name: (-len(groups[name]), name))[:_MOST]
    if len(groups) > _MOST:
        largest = [name for name in largest if len(groups[name]) > 1]
    shown = {name: groups[name] for name in sorted(largest, key=_natural)}
    taken = {query for queries in shown.values() for query in queries}
    rest = sorted({query for queries in groups.values() for query in queries} - taken)
    return shown | ({REST: rest} if rest else {})


def _natural(name: str) -> tuple[bool, float, str]:
    """Numbers by their value ("6-10" before "11-20"), then words, then what stands in brackets."""
    number = re.match(r"\d+", name)
    return name == UNKNOWN, float(number[0]) if number else inf, name


def _value(test_set: TestSet, field: str, query: str) -> list[str]:
    value = test_set.metadata.get(query, {}).get(field)
    return [UNKNOWN if value is None else str(value)]


def _length(text: str) -> str:
    words = len(text.split())
    return next((f"{low}-{high}" for low, high in _LENGTHS if words <= high), f"{_LENGTHS[-1][1] + 1}+")


def _documents(test_set: TestSet, query: str) -> set[str]:
    """The source files of all passages that answer a question."""
    relevant = (passage for passage, grade in test_set.qrels[query].items() if grade > 0)
    return {name for passage in relevant for name in test_set.corpus[passage].documents} or {UNKNOWN}


def _found(test_set: TestSet, query: str, passage: str) -> Found:
    item, grade = test_set.corpus[passage], test_set.qrels[query].get(passage, 0)
    return Found(passage, grade, item.documents, " ".join(item.text[: 2 * EXCERPT].split())[:EXCERPT])

"""What exactly was measured: enough to tell whether an earlier measurement is still true."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

from pipeline.assets import digest_of_lines
from pipeline.records.beir import TestSet
from pipeline.records.passages import Passage
from pipeline.records.results import Facts
from pipeline_eval import metrics


@dataclass(frozen=True)
class Identity:
    """A system as a measurement saw it.

    `model` is its name for people; `content` stands for the weights and decides; `contract` is the digest of its
    encoding contract; `dtype` the number type it was computed in; `candidates` what it was given to put in order.
    """

    model: str
    content: str
    contract: str | None = None
    dtype: str | None = None
    candidates: str | None = None

    def fingerprint(self, test_set_digest: str, k_values: list[int]) -> str:
        """16 hex digits that change when the numbers may change."""
        return digest_of_lines([json.dumps([self._decisive, test_set_digest, k_values, metrics.VERSION])])

    def digest(self) -> str:
        """16 hex digits that change when the system's rankings may change."""
        return digest_of_lines([json.dumps(self._decisive)])

    @property
    def _decisive(self) -> dict[str, str | None]:
        return {name: value for name, value in sorted(asdict(self).items()) if name != "model"}


class Searcher(Protocol):
    """A system that has read a corpus."""

    @property
    def facts(self) -> Facts: ...

    def search(self, queries: dict[str, str], k: int) -> metrics.Run: ...


class System(Protocol):
    """Anything that ranks the passages of a corpus for a question."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> Identity: ...


@runtime_checkable
class SearchSystem(System, Protocol):
    """Looks at the whole corpus."""

    def open(self, corpus: dict[str, Passage]) -> AbstractContextManager[Searcher]: ...


class Ranker(Protocol):
    """Makes one ranking out of others. `facts` are those of the last one."""

    @property
    def facts(self) -> Facts: ...

    def rank(self, test_set: TestSet, rankings: Sequence[metrics.Run]) -> metrics.Run:
        """Rankings of the sources, best first and in their order -> a ranking, best first."""
        ...


@runtime_checkable
class DerivedSystem(System, Protocol):
    """Works on the rankings of other systems and searches nothing itself."""

    @property
    def sources(self) -> tuple[str, ...]: ...

    def start(self) -> AbstractContextManager[Ranker]: ...


def digest_of(test_set: TestSet) -> str:
    """Changes with any question, passage or judgement; not with the set's name."""

    def lines() -> Iterator[str]:
        for item in test_set.corpus.values():
            yield json.dumps(["passage", item.id, item.title, item.text])
        for query, text in test_set.queries.items():
            yield json.dumps(["question", query, text, test_set.qrels[query]], sort_keys=True)

    return digest_of_lines(lines())

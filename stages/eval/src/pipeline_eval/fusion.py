"""Several rankings as one, by their ranks alone.

Reciprocal rank fusion: Cormack, Clarke & Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods" (SIGIR 2009), https://doi.org/10.1145/1571941.1572114
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.records.beir import TestSet
from pipeline.records.results import Facts
from pipeline_eval.identity import Identity, System
from pipeline_eval.metrics import Run

SMOOTHING = 60
"""The paper's k: how little the first ranks stand out."""
DEPTH = 100
"""Passages of each ranking that are fused."""


@dataclass(frozen=True)
class HybridSystem:
    """Rankings of `sources` fused; the first source decides between equal sums."""

    sources: tuple[str, ...]
    identity: Identity
    depth: int = DEPTH
    name: str = "hybrid"
    facts: Facts = Facts()

    @classmethod
    def of(cls, systems: Sequence[System], depth: int) -> HybridSystem:
        """The first `depth` passages of each of `systems`, whose identities make up its own."""
        names, parts = [item.name for item in systems], [item.identity.digest() for item in systems]
        content = f"reciprocal rank fusion of the first {depth} of {', '.join(parts)}"
        return cls(tuple(names), Identity(f"{' and '.join(names)}, fused by rank", content), depth)

    @contextmanager
    def start(self) -> Iterator[HybridSystem]:
        yield self

    def rank(self, test_set: TestSet, rankings: Sequence[Run]) -> Run:
        return {
            query: reciprocal_rank_fusion([list(run.get(query, {}))[: self.depth] for run in rankings])
            for query in test_set.queries
        }


def reciprocal_rank_fusion(rankings: Sequence[Sequence[str]], smoothing: int = SMOOTHING) -> dict[str, float]:
    """Passage ids of several rankings, best first -> id: sum of 1 / (smoothing + rank), best first; ranks from 1."""
    sums: dict[str, float] = {}
    for ranking in rankings:
        for rank, passage in enumerate(ranking, 1):
            sums[passage] = sums.get(passage, 0.0) + 1 / (smoothing + rank)
    return dict(sorted(sums.items(), key=lambda item: -item[1]))

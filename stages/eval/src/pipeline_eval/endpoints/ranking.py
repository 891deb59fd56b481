"""A served reranker as a system: it puts the candidates of the first stage, the same as for a checkpoint, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pipeline.contract import EncodingContract
from pipeline.records.beir import TestSet
from pipeline.records.results import Facts
from pipeline.run.progress import progress
from pipeline_eval.endpoints.clients import RankingClient
from pipeline_eval.identity import Identity
from pipeline_eval.metrics import Run
from pipeline_eval.rerank import reordered


@dataclass(frozen=True)
class ServedReranker:
    """The service over the first `top_k` of what `source` ranks (`candidates`: its identity); always measured anew.

    `checkpoint` is the content of the tuned model of this run: the measurement is dropped when that changes. `chunk`
    pairs are held in memory at once.
    """

    client: RankingClient
    checkpoint: str
    source: str
    candidates: Identity
    top_k: int
    chunk: int
    name: str = "nim"

    @property
    def identity(self) -> Identity:
        first = f"top {self.top_k} of {self.candidates.digest()}"
        return Identity(f"{self.client.model} at {self.client.url}", self.checkpoint, candidates=first)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    @contextmanager
    def start(self) -> Iterator[ServedRanker]:
        yield ServedRanker(self)


class ServedRanker:
    """A service that was found ready."""

    def __init__(self, system: ServedReranker) -> None:
        self._system = system
        self.facts = Facts()

    def rank(self, test_set: TestSet, rankings: Sequence[Run]) -> Run:
        system = self._system
        pairs = sum(min(len(ranking), system.top_k) for ranking in rankings[0].values())
        with progress(f"{system.name}: pairs of {test_set.name}", pairs, "pairs") as shown:

            def score(queries: Sequence[str], passages: Sequence[str]) -> np.ndarray:
                return system.client.score(queries, passages, shown.advance)

            plain = EncodingContract("rerank")  # the service makes a text of question and passage itself
            return reordered(test_set, rankings[0], system.top_k, score, plain, system.chunk)

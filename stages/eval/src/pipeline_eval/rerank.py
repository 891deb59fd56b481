"""A cross-encoder under its own contract: the candidates of a first stage, put in a new order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet
from pipeline.records.results import Facts
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.transformer import LoadOptions
from pipeline.run.progress import progress
from pipeline_eval.identity import Identity
from pipeline_eval.loaded import Compute, released, weights_mb
from pipeline_eval.metrics import Run

UNTRAINED = "untrained head"
Score = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""Questions and formatted passages, pair by pair -> scores [n]."""


@dataclass(frozen=True)
class RerankSystem:
    """The base or the tuned reranker over the first `top_k` of what `source` ranks (`candidates`: its identity)."""

    name: str
    reference: str
    content: str
    contract: EncodingContract
    options: LoadOptions
    compute: Compute
    source: str
    candidates: Identity
    top_k: int

    @property
    def identity(self) -> Identity:
        first = f"top {self.top_k} of {self.candidates.digest()}"
        return Identity(self.reference, self.content, self.contract.digest(), self.compute.dtype_name, first)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    @contextmanager
    def start(self) -> Iterator[Reranker]:
        loaded = CrossEncoder.load(
            self.reference, self.contract, device=self.compute.device, dtype=self.compute.dtype, options=self.options
        )
        self.compute.suit(loaded.body, self.options)
        with released(loaded) as model:
            yield Reranker(self, model)


class Reranker:
    """A loaded cross-encoder."""

    def __init__(self, system: RerankSystem, model: CrossEncoder) -> None:
        self._system, self._model = system, model
        self.facts = Facts()

    def rank(self, test_set: TestSet, rankings: Sequence[Run]) -> Run:
        system, model = self._system, self._model
        before, world = replace(model.cut), system.compute.world
        mine = list(test_set.queries)[world.rank :: world.size]
        pairs = sum(min(len(rankings[0].get(query, {})), system.top_k) for query in mine)
        with progress(f"{system.name}: pairs of {test_set.name}", pairs, "pairs") as shown:

            def score(queries: Sequence[str], passages: Sequence[str]) -> np.ndarray:
                scores = model.score(
                    queries, passages, batch_tokens=system.compute.batch_tokens, on_batch=shown.advance
                )
                if not np.isfinite(scores).all():
                    raise PipelineError(
                        f"{system.reference} gives scores that are not finite numbers",
                        fix="set precision=fp32; if that does not help, its training failed: make the model again",
                    )
                return scores

            run = reordered(test_set, rankings[0], system.top_k, score, model.contract, system.compute.chunk, mine)
        runs, texts, cut = zip(
            *world.gather_objects((run, model.cut.pairs - before.pairs, model.cut.passages - before.passages)),
            strict=True,
        )
        self.facts = Facts(
            size_mb=weights_mb(model),
            texts=sum(texts),
            cut=sum(cut),
            max_length=model.contract.max_length("pair"),
            note=None if model.trained else UNTRAINED,
        )
        every = {query: found for part in runs for query, found in part.items()}
        return {query: every[query] for query in test_set.queries}


def reordered(
    test_set: TestSet,
    ranking: Run,
    top_k: int,
    score: Score,
    contract: EncodingContract,
    chunk: int,
    queries: Sequence[str] | None = None,
) -> Run:
    """The first `top_k` passages of each question by their scores; of equal ones the better of `ranking` comes first.

    `queries`: ids of the questions to answer; None: all.

    Pairs are scored `chunk` at a time, over the borders of questions, so that texts of one length come together.
    """
    candidates = {
        query: list(ranking.get(query, {}))[:top_k] for query in (test_set.queries if queries is None else queries)
    }
    pairs = [(query, passage) for query, passages in candidates.items() for passage in passages]
    scores: list[float] = []
    for start in range(0, len(pairs), chunk):
        part = pairs[start : start + chunk]
        found = [test_set.corpus[passage] for _, passage in part]
        texts = [contract.format_passage(passage.text, passage.title) for passage in found]
        scores += score([test_set.queries[query] for query, _ in part], texts).tolist()
    run: Run = {query: {} for query in candidates}
    for (query, passage), value in zip(pairs, scores, strict=True):
        run[query][passage] = value
    return {query: dict(sorted(found.items(), key=lambda item: -item[1])) for query, found in run.items()}

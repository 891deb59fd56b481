"""Approximate search for corpora beyond exact search: an inverted file of faiss over the stored vectors.

Inverted lists: Sivic and Zisserman 2003; faiss: Douze et al. 2024, https://arxiv.org/abs/2401.08281.
"""

from __future__ import annotations

import logging

import numpy as np

from pipeline.retrieval.passages import Passages
from pipeline.retrieval.search import Limits, Nearest, nearest, pair_scores

log = logging.getLogger("pipeline")
_TRAINED_ON = 64
"""Passages for each list that the lists are found with."""
_PROBES = 32
_PROBED_QUERIES = 128


class ApproximateIndex:
    """Scores are exact (computed again from the stored vectors); which passages are looked at is not."""

    def __init__(self, passages: Passages, block: int, seed: int) -> None:
        import faiss

        lists = max(1, min(int(4 * len(passages) ** 0.5), len(passages) // 39 or 1))
        self._index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(passages.dimension), passages.dimension, lists,
            faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT,
        )  # fmt: skip
        self._index.cp.seed = seed
        self._index.nprobe = min(_PROBES, lists)
        sample = np.random.default_rng(seed).permutation(len(passages))[: _TRAINED_ON * lists]
        self._index.train(passages.take(np.sort(sample)))
        for numbers, vectors in passages.blocks(block):
            self._index.add_with_ids(np.asarray(vectors, np.float32), numbers)
        log.info(f"approximate index: {len(passages):,} passages in {lists:,} lists, {self._index.nprobe} probed")

    def nearest(self, queries: np.ndarray, passages: Passages, k: int, limits: Limits) -> Nearest:
        """Like `pipeline.retrieval.search.nearest`; `above` counts what the index saw above the ceiling."""
        _, found = self._index.search(np.ascontiguousarray(queries, np.float32), min(2 * k, len(passages)))
        row, place = (found >= 0).nonzero()
        passage = found[row, place]
        score = pair_scores(queries, passages, row, passage)
        excluded = limits.excluded or (np.empty(0, np.int64),) * 2
        banned = np.isin(row * len(passages) + passage, excluded[0] * len(passages) + excluded[1])
        if limits.hidden is not None:
            banned |= np.isin(passage, limits.hidden)
        above = ~banned & (score > limits.ceilings[row])
        good = ~banned & ~above & (score >= limits.floor)
        return _square(row[good], passage[good], score[good], k, np.bincount(row[above], minlength=len(queries)))

    def recall(self, queries: np.ndarray, passages: Passages, k: int, block: int, seed: int) -> float:
        """Share of the exact `k` nearest that the index finds, over some questions drawn by `seed`."""
        drawn = np.random.default_rng(seed).permutation(len(queries))[:_PROBED_QUERIES]
        everything = Limits(np.full(len(drawn), np.inf, np.float32))
        exact = nearest(queries[drawn], passages, k, passage_block=block)
        ours = self.nearest(queries[drawn], passages, k, everything)
        hits = [len(np.intersect1d(a, b)) for a, b in zip(exact.indices, ours.indices, strict=True)]
        return float(np.sum(hits) / max(exact.indices.size, 1))


def _square(row: np.ndarray, passage: np.ndarray, score: np.ndarray, k: int, above: np.ndarray) -> Nearest:
    """The `k` best of each row as arrays [rows, k]; -inf and -1 where there are fewer."""
    order = np.lexsort((passage, -score, row))
    row, passage, score = row[order], passage[order], score[order]
    first = np.searchsorted(row, np.arange(len(above)))
    place = np.arange(len(row)) - first[row]
    kept = place < k
    scores, indices = np.full((len(above), k), -np.inf, np.float32), np.full((len(above), k), -1, np.int64)
    scores[row[kept], place[kept]], indices[row[kept], place[kept]] = score[kept], passage[kept]
    return Nearest(scores, indices, above)

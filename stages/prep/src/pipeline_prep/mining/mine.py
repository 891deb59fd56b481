"""Hard negatives: the passages nearest to a question that do not answer it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.records.training import TrainingRow
from pipeline.retrieval.search import top_k_below
from pipeline_prep.vectors import Vectors

_PAIRS_AT_ONCE = 65_536


@dataclass(frozen=True)
class MiningReport:
    """What mining did.

    Attributes:
        rows, negatives: how many rows were mined and how many negatives they got.
        short: rows with fewer negatives than wanted; none: rows without any.
        above_ceiling: (question, passage) pairs left out for scoring too close to the positive.
        known_positives: pairs left out because the passage answers the question.
        kept_for_test: passages no row may use because they answer a test question.
        positive_scores, negative_scores: fp32, similarity of every positive and of every negative written.
    """

    rows: int
    negatives: int
    short: int
    none: int
    above_ceiling: int
    known_positives: int
    kept_for_test: int
    positive_scores: np.ndarray
    negative_scores: np.ndarray


def ceilings(lowest_positive: np.ndarray, margin: float) -> np.ndarray:
    """Highest score a negative may have: lowest positive - (1 - margin) * |lowest positive|.

    The margin is a share of the positive's size, so that it lowers the ceiling for negative similarities too. After
    NV-Retriever (Moreira et al. 2024, TopK-PercPos), whose plain product rises above a negative positive.
    """
    return (lowest_positive - (1 - margin) * np.abs(lowest_positive)).astype(np.float32)


def mine(
    rows: list[TrainingRow],
    vectors: Vectors,
    *,
    wanted: int,
    margin: float,
    kept_for_test: set[str],
    query_block: int = 128,
    device: torch.device | str = "cpu",
) -> MiningReport:
    """Fill the rows' negatives and scores in place, hardest first; a row gets fewer rather than a doubtful one.

    Never a negative: a known positive of the question, a passage above the ceiling, a passage that answers a test
    question. The last are part of the corpus and could be used, but then training would push the very answers of the
    test set away from other questions; leaving them out costs a few candidates and keeps the test set untouched.
    """
    ids = list(vectors.passage_row)
    queries = vectors.of(rows)
    row, passage = vectors.pairs(rows)
    positive_scores = _pair_scores(queries, vectors.passages, row, passage)
    lowest = np.full(len(rows), np.inf, np.float32)
    np.minimum.at(lowest, row, positive_scores)
    known = vectors.pairs(rows, known=True)
    hidden = np.array(sorted(vectors.passage_row[key] for key in kept_for_test), dtype=np.int64)
    found = top_k_below(
        queries,
        vectors.passages,
        wanted,
        ceilings(lowest, margin),
        known,
        hidden=hidden,
        query_block=query_block,
        device=device,
    )

    borders = np.cumsum([len(item.positives) for item in rows])[:-1]
    for item, scores in zip(rows, np.split(positive_scores, borders), strict=bool(rows)):
        item.positive_scores = dict(zip(item.positives, scores.tolist(), strict=True))
    usable = np.isfinite(found.scores)
    for number, item in enumerate(rows):
        columns = found.indices[number][usable[number]].tolist()
        item.negatives = [ids[column] for column in columns]
        item.negative_scores = dict(zip(item.negatives, found.scores[number][usable[number]].tolist(), strict=True))
    each = usable.sum(1)
    return MiningReport(
        rows=len(rows),
        negatives=int(each.sum()),
        short=int((each < wanted).sum()),
        none=int((each == 0).sum()),
        above_ceiling=int(found.above.sum()),
        known_positives=len(known[0]),
        kept_for_test=len(hidden),
        positive_scores=positive_scores,
        negative_scores=found.scores[usable],
    )


def _pair_scores(queries: np.ndarray, passages: np.ndarray, row: np.ndarray, passage: np.ndarray) -> np.ndarray:
    """Dot product of each (row, passage) pair: fp32 [P]."""
    scores = np.empty(len(row), np.float32)
    for start in range(0, len(row), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        scores[part] = np.einsum("pd,pd->p", queries[row[part]], passages[passage[part]])
    return scores

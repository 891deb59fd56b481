from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pyarrow as pa
import torch
from pipeline_prep.mining.compute import make_compute
from pipeline_prep.mining.mine import mine
from pipeline_prep.mining.task import MiningTask

from pipeline.records.sources.ragged import Ragged
from pipeline.retrieval.passages import ArrayPassages
from pipeline.retrieval.world import World
from pipeline.schemas.mining import MiningCompute, MiningKeys

CPU = torch.device("cpu")
RULES = MiningKeys(near_duplicate_threshold=None, exclude_answers=False, hard_negatives_to_mine=4)


def clustered(count: int, seed: int) -> np.ndarray:
    """Unit vectors around 40 centres, as texts on 40 topics would lie."""
    random = np.random.default_rng(0).normal(size=(40, 16))
    own = np.random.default_rng(seed)
    points = random[own.integers(0, 40, count)] + 0.4 * own.normal(size=(count, 16))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def setting(passages=4000, queries=60):
    right, left = clustered(passages, 1), clustered(queries, 2)
    nearest = (left @ right.T).argmax(1)
    names = [f"d{number}" for number in range(passages)]
    corpus = pa.table({"id": names, "text": names, "title": [""] * passages})
    ids = [f"q{number}" for number in range(queries)]
    positives = Ragged.of_rows([[int(item)] for item in nearest])
    task = MiningTask(ids, ids, [[]] * queries, corpus, positives, positives, Ragged.of_rows([[]] * queries))
    return task, left, ArrayPassages(right)


def mined(task, left, passages, rules=RULES, **compute):
    chosen = make_compute(MiningCompute(**compute), CPU, passages, left, 1, World())
    return chosen, mine(task, left, passages, rules, seed=1, compute=chosen)


def test_large_corpora_are_searched_approximately_and_the_recall_is_measured(caplog):
    task, left, passages = setting()
    with caplog.at_level(logging.INFO, "pipeline"):
        compute, found = mined(task, left, passages, ann_above=1000)
    assert compute.index is not None and compute.recall > 0.9 and "approximate search finds" in caplog.text
    exactly, expected = mined(task, left, passages)
    assert exactly.index is None and exactly.recall is None
    same = sum(len(np.intersect1d(found.negatives[row], expected.negatives[row])) for row in range(len(task))) / len(
        expected.negatives.values
    )
    assert same > 0.85
    assert not np.isin(found.negatives.values, task.positives.values[found.negatives.row_numbers]).all()
    lowest = found.positive_scores[found.negatives.row_numbers]
    assert (found.scores <= lowest - 0.05 * np.abs(lowest) + 1e-6).all()


def test_small_corpora_are_searched_exactly():
    task, left, passages = setting(passages=500, queries=5)
    assert mined(task, left, passages, ann_above=500)[0].index is None


def test_what_the_index_leaves_short_is_searched_exactly():
    """Far below the ceiling nothing is near: the index sees only neighbours above it."""
    task, left, passages = setting()
    rules = dataclasses.replace(RULES, negative_max_score=-0.3)
    _, found = mined(task, left, passages, rules, ann_above=1000)
    _, expected = mined(task, left, passages, rules)
    assert len(expected.negatives.values) == 4 * len(task)
    np.testing.assert_array_equal(found.negatives.values, expected.negatives.values)

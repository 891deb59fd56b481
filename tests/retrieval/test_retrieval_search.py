from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.retrieval.search import Limits, nearest, top_k

# Small whole numbers: every product is exact in fp32, so that equal scores are truly equal and ties are everywhere.
cases = st.tuples(
    st.integers(0, 10_000), st.integers(0, 9), st.integers(1, 60), st.integers(1, 70), st.integers(1, 70),
    st.integers(1, 10),
)  # fmt: skip


def whole_numbers(seed: int, queries: int, passages: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return (
        random.integers(-2, 3, (queries, 3)).astype(np.float32),
        random.integers(-2, 3, (passages, 3)).astype(np.float32),
    )


def brute_force(scores: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@given(cases)
@settings(max_examples=200, deadline=None)
def test_top_k_equals_brute_force_for_every_block_size_and_tie(case):
    seed, queries, passages, k, passage_block, query_block = case
    left, right = whole_numbers(seed, queries, passages)
    scores, indices = top_k(left, right, k, passage_block=passage_block, query_block=query_block)
    everything = left @ right.T
    expected = brute_force(everything, k)
    assert indices.shape == scores.shape == (queries, min(k, passages))
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(scores, np.take_along_axis(everything, expected, 1))


@given(cases)
@settings(max_examples=200, deadline=None)
def test_limits_equal_brute_force_with_everything_masked(case):
    seed, queries, passages, k, passage_block, query_block = case
    left, right = whole_numbers(seed, queries, passages)
    random = np.random.default_rng(seed + 1)
    ceilings = random.integers(-4, 9, queries).astype(np.float32)
    count = int(random.integers(0, 20)) if queries else 0
    pairs = random.integers(0, max(queries, 1), count), random.integers(0, passages, count)
    hidden = np.unique(random.integers(0, passages, int(random.integers(0, 4))))
    limits = Limits(ceilings, excluded=pairs, hidden=hidden)
    found = nearest(left, right, k, limits, passage_block=passage_block, query_block=query_block)

    scores = left @ right.T
    scores[pairs], scores[:, hidden] = -np.inf, -np.inf
    above = scores > ceilings[:, None]
    scores[above] = -np.inf
    expected = brute_force(scores, k)
    best = np.take_along_axis(scores, expected, 1)
    np.testing.assert_array_equal(found.scores, best)
    np.testing.assert_array_equal(found.indices, np.where(np.isfinite(best), expected, -1))
    np.testing.assert_array_equal(found.above, above.sum(1))


def test_real_vectors_agree_with_a_full_product():
    random = np.random.default_rng(0)
    left = random.normal(size=(33, 64)).astype(np.float32)
    right = random.normal(size=(1_000, 64)).astype(np.float32)
    scores, indices = top_k(left, right, 10, passage_block=97, query_block=8)
    everything = left @ right.T
    np.testing.assert_array_equal(indices, brute_force(everything, 10))
    np.testing.assert_allclose(scores, np.take_along_axis(everything, indices, 1), rtol=1e-5)


def test_passages_may_be_memory_mapped(tmp_path):
    right = np.arange(40, dtype=np.float32).reshape(20, 2)
    np.save(tmp_path / "passages.npy", right)
    mapped = np.load(tmp_path / "passages.npy", mmap_mode="r")
    _, indices = top_k(np.ones((1, 2), np.float32), mapped, 3, passage_block=7)
    assert indices.tolist() == [[19, 18, 17]]


@pytest.mark.parametrize("passages", [0, 1])
def test_fewer_passages_than_asked_for(passages):
    scores, indices = top_k(np.ones((2, 3), np.float32), np.ones((passages, 3), np.float32), 5)
    assert scores.shape == indices.shape == (2, passages)

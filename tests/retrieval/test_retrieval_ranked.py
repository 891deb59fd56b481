"""Keys of scores and passage numbers: nothing is lost in them, and their order is the order of the search."""

from __future__ import annotations

import struct

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.retrieval.ranked import NOTHING, Best, best_of, numbers_of, pack, scores_of

_SMALLEST = struct.unpack("<f", b"\x01\0\0\0")[0]
_LARGEST = float(torch.finfo(torch.float32).max)
_LAST = 2**32 - 2
EXTREMES = [0.0, -0.0, 1.0, -1.0, _SMALLEST, -_SMALLEST, _LARGEST, -_LARGEST]

scores = st.one_of(
    st.sampled_from(EXTREMES), st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(-2, 2).map(float)
)
numbers = st.one_of(st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 3, _LAST]), st.integers(0, _LAST))
pairs = st.lists(st.tuples(scores, numbers), min_size=1, max_size=40)


def keys_of(held: list[tuple[float, int]]) -> torch.Tensor:
    return pack(torch.tensor([score for score, _ in held]), torch.tensor([number for _, number in held]))


def best_first(held: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return sorted(held, key=lambda pair: (-pair[0], pair[1]))


@given(pairs)
@settings(max_examples=300, deadline=None)
def test_what_is_packed_comes_back_bit_for_bit(held):
    keys = keys_of(held)
    assert keys.dtype == torch.int64 and (keys != NOTHING).all()
    found = scores_of(keys)
    assert found.dtype == torch.float32
    expected = np.array([score for score, _ in held], np.float32) + np.float32(0)  # -0 comes back as 0
    assert found.numpy().tobytes() == expected.tobytes()
    assert numbers_of(keys).tolist() == [number for _, number in held]


@given(pairs)
@settings(max_examples=300, deadline=None)
def test_keys_are_ordered_by_score_and_then_by_the_lower_number(held):
    keys = keys_of(held)
    ordered = keys[keys.argsort(descending=True)]
    assert list(zip(scores_of(ordered).tolist(), numbers_of(ordered).tolist(), strict=True)) == best_first(held)


def test_an_empty_place_is_below_every_key_and_reads_as_nothing():
    nothing = torch.tensor([NOTHING])
    assert scores_of(nothing).tolist() == [-float("inf")] and numbers_of(nothing).tolist() == [-1]
    lowest = pack(torch.tensor([-_LARGEST]), torch.tensor([_LAST]))
    assert best_of(torch.stack([nothing, lowest], dim=1), 2).tolist() == [[lowest.item(), NOTHING]]


@given(
    st.integers(1, 6),
    st.lists(st.lists(st.tuples(st.integers(0, 4), scores, numbers), max_size=25), min_size=1, max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_best_holds_the_best_of_all_that_was_offered_in_any_pieces(k, offers):
    best = Best(7, k, "cpu")
    held: dict[int, list[tuple[float, int]]] = {}
    for offer in offers:
        # A search offers every pair of question and passage once.
        fresh = {(row, number): score for row, score, number in offer}
        fresh = {key: score for key, score in fresh.items() if key[1] not in {n for _, n in held.get(key[0], [])}}
        for (row, number), score in fresh.items():
            held.setdefault(row, []).append((score, number))
        rows = torch.tensor([row for row, _ in fresh], dtype=torch.int64)
        best.offer(2, rows, keys_of([(score, number) for (_, number), score in fresh.items()]) if fresh else rows)
    for row in range(5):
        expected = best_first(held.get(row, []))[:k]
        missing = k - len(expected)
        keys = best.keys[2 + row]
        assert scores_of(keys).tolist() == [score for score, _ in expected] + [-float("inf")] * missing
        assert numbers_of(keys).tolist() == [number for _, number in expected] + [-1] * missing
    assert (best.keys[:2] == NOTHING).all(), "rows that nothing was offered to"
    assert torch.equal(best.bar(slice(2, 7)), scores_of(best.keys[2:, -1]))

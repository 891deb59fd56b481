"""The search against all exact scores: the same bits however the work is cut, rounded and shared."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.retrieval.scan as scan_module
from pipeline.retrieval import search
from pipeline.retrieval.scan import dot
from pipeline.retrieval.search import Limits, Nearest, nearest, pair_scores
from pipeline.retrieval.world import World

ROUGH = [torch.bfloat16, torch.float16, torch.float32]


@dataclass
class Board:
    """Where threads that play processes lay down what they gather."""

    size: int
    values: list[Any] = field(init=False)
    barrier: threading.Barrier = field(init=False)

    def __post_init__(self) -> None:
        self.values, self.barrier = [None] * self.size, threading.Barrier(self.size, timeout=30)


@dataclass(frozen=True)
class Thread(World):
    board: Board | None = None

    def gather_objects(self, value: Any) -> list[Any]:
        self.board.values[self.rank] = value
        self.board.barrier.wait()
        every = list(self.board.values)
        self.board.barrier.wait()
        return every


def by_processes(size: int, *args: Any, **more: Any) -> list[Nearest]:
    """What each of `size` processes finds."""
    if size == 1:
        return [nearest(*args, **more)]
    board, found = Board(size), [None] * size

    def work(rank: int) -> None:
        found[rank] = nearest(*args, world=Thread(rank, size, board), **more)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in found
    return found


def every_score(queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """fp32 [Q, N], one pair at a time."""
    left, right = torch.from_numpy(queries), torch.from_numpy(passages)
    one_by_one = [[dot(a.unsqueeze(0), b.unsqueeze(0)).item() for b in right] for a in left]
    return np.array(one_by_one, np.float32).reshape(len(queries), len(passages))


def reference(queries: np.ndarray, passages: np.ndarray, k: int, limits: Limits) -> Nearest:
    scores = every_score(queries, passages)
    count = len(queries)
    if limits.excluded is not None:
        scores[limits.excluded] = -np.inf
    if limits.hidden is not None:
        scores[:, limits.hidden] = -np.inf
    above = np.zeros(count, np.int64)
    if limits.ceilings is not None:
        too_high = scores > limits.ceilings[:, None]
        above = too_high.sum(1)
        scores[too_high] = -np.inf
    scores[scores < limits.floor] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, len(passages))]
    best = np.take_along_axis(scores, order, 1) + np.float32(0)
    return Nearest(best, np.where(best == -np.inf, -1, order), above)


def assert_same(found: Nearest, expected: Nearest) -> None:
    np.testing.assert_array_equal(found.indices, expected.indices)
    assert found.scores.dtype == np.float32 and found.scores.tobytes() == expected.scores.tobytes()
    np.testing.assert_array_equal(found.above, expected.above)


def vectors(random: np.random.Generator, count: int, dimension: int, kind: str) -> np.ndarray:
    """`close`: so alike that rough scores cannot tell them apart. `wild`: lengths of many sizes."""
    made = random.normal(size=(count, dimension)).astype(np.float32)
    if kind == "close":
        made = random.normal(size=dimension).astype(np.float32) + 1e-3 * made
    if kind == "wild":
        made *= 10.0 ** random.integers(-4, 5, (count, 1))
    if kind == "ties":
        made = made[random.integers(0, max(count // 5, 1), count)] if count else made
    if kind in ("unit", "close", "ties"):
        made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float32)


def limits_of(random: np.random.Generator, queries: np.ndarray, passages: np.ndarray) -> Limits:
    scores = every_score(queries, passages)
    spread = scores if scores.size else np.zeros((1, 1), np.float32)
    ceilings = random.choice(spread.ravel(), len(queries)).astype(np.float32)  # often exactly a score
    ceilings[random.random(len(queries)) < 0.2] = np.inf
    count = int(random.integers(0, 3 * len(passages))) if len(queries) else 0
    return Limits(
        ceilings=ceilings if random.random() < 0.8 else None,
        floor=float(np.quantile(spread, random.random())) if random.random() < 0.5 else -np.inf,
        excluded=(random.integers(0, max(len(queries), 1), count), random.integers(0, len(passages), count)),
        hidden=np.flatnonzero(random.random(len(passages)) < 0.1) if random.random() < 0.7 else None,
    )


@given(
    seed=st.integers(0, 10_000), queries=st.integers(0, 7), passages=st.integers(1, 90), k=st.integers(1, 40),
    dimension=st.sampled_from([1, 3, 16, 40]), kind=st.sampled_from(["unit", "close", "wild", "ties"]),
    stored=st.sampled_from([np.float16, np.float32]), rough=st.sampled_from(ROUGH[::2]),
    passage_block=st.integers(1, 100), query_block=st.integers(1, 8), size=st.integers(1, 3),
    tile=st.sampled_from([64, 256, 8_388_608]),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_the_same_bits_however_the_work_is_cut(
    seed, queries, passages, k, dimension, kind, stored, rough, passage_block, query_block, size, tile
):
    random = np.random.default_rng(seed)
    left, right = vectors(random, queries, dimension, kind), vectors(random, passages, dimension, kind)
    right = np.clip(right, -6e4, 6e4).astype(stored)
    limits = limits_of(random, left, right)
    expected = reference(left, right, k, limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "rough_type", lambda device: rough)
        patch.setattr(scan_module, "_TILE", tile)
        found = by_processes(size, left, right, k, limits, passage_block=passage_block, query_block=query_block)
    for one in found:
        assert_same(one, expected)
    there = expected.indices >= 0
    row, place = there.nonzero()
    again = pair_scores(left, search.ArrayPassages(right), row, expected.indices[row, place])
    assert (again + np.float32(0)).tobytes() == expected.scores[row, place].tobytes()


def cone(random: np.random.Generator, count: int, opening: float) -> np.ndarray:
    """Unit vectors around one axis, as those of many models lie."""
    own = random.normal(size=(count, 384)) * opening / np.sqrt(384)
    own[:, 0] += 1
    return (own / np.linalg.norm(own, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("opening", "rough", "taken"),
    [(30, torch.bfloat16, torch.bfloat16), (1.0, torch.bfloat16, torch.bfloat16), (0.1, torch.bfloat16, torch.float32),
     (0.6, torch.float32, torch.float32)],
)  # fmt: skip
def test_rough_scores_are_never_further_off_than_said_and_fine_enough(opening, rough, taken):
    """Less their mean the vectors of a cone are short; where even that is too coarse, fp32 is taken."""
    random = np.random.default_rng(1)
    left, right = cone(random, 20, opening), cone(random, 700, opening).astype(np.float16)
    scan = scan_module.Scan(left, Limits(), search.Best(20, 5, "cpu"), torch.zeros(20, dtype=torch.int64), 20, rough)
    block = scan._prepared(np.arange(700), right, rough)
    assert block.tiles[0].dtype == taken
    scores = left.astype(np.float64) @ right.astype(np.float64).T
    roughly = (block.queries @ torch.cat(block.tiles).T)[:, :700].double() + block.shift.double().unsqueeze(1)
    wrong = np.abs(roughly.numpy() - scores)
    assert (wrong <= block.error.numpy()[:, None]).all()
    assert block.error.median() < 0.4 * scores.std(1).mean(), "a bound that lets much through would cost the speed"


@given(st.integers(0, 1000), st.integers(1, 70), st.sampled_from([1, 7, 8, 9, 31, 64, 100, 384, 1024]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_pair_scores_the_same_whatever_stands_beside_it(seed, pairs, dimension, half):
    random = np.random.default_rng(seed)
    left = torch.from_numpy(random.normal(size=(pairs, dimension)).astype(np.float32))
    right = torch.from_numpy(random.normal(size=(pairs, dimension)).astype(np.float16 if half else np.float32))
    together = dot(left, right)
    alone = torch.cat([dot(left[item : item + 1], right[item : item + 1]) for item in range(pairs)])
    assert together.numpy().tobytes() == alone.numpy().tobytes()
    cut = int(random.integers(0, pairs + 1))
    parts = torch.cat([dot(left[:cut], right[:cut]), dot(left[cut:], right[cut:])])
    assert together.numpy().tobytes() == parts.numpy().tobytes()


def test_many_equal_passages_give_the_lowest_numbers():
    right = np.tile(np.ones((1, 8), np.float32) / np.sqrt(8), (300, 1)).astype(np.float32)
    for block in (1, 7, 64, 300):
        found = nearest(right[:3], right, 10, Limits(hidden=np.array([0, 4])), passage_block=block)
        assert found.indices.tolist() == [[1, 2, 3, 5, 6, 7, 8, 9, 10, 11]] * 3

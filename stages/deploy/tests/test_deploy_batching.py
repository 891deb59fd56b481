"""Merging concurrent requests into batches."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_deploy.batching import Batcher


class Model:
    """Embeds a text as (its length, its first token); remembers the batches. It can be made to wait."""

    def __init__(self):
        self.batches = []

    def __call__(self, tokens):
        self.batches.append([len(item) for item in tokens])
        if any(item[0] < 0 for item in tokens):
            raise RuntimeError("negative token")
        return np.array([[len(item), item[0]] for item in tokens], dtype=np.float32)


def text(length, first=0):
    return [first] + [0] * (length - 1)


def run(model, requests, max_tokens=64):
    async def all_at_once():
        batcher = Batcher(model, max_tokens)
        try:
            return await asyncio.gather(*(batcher.compute(each) for each in requests), return_exceptions=True)
        finally:
            batcher.close()

    return asyncio.run(all_at_once())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=8), min_size=1, max_size=12))
def test_every_request_gets_its_own_rows_in_order(requests):
    model = Model()
    numbered = [[text(n, 100 * r + i) for i, n in enumerate(lengths)] for r, lengths in enumerate(requests)]
    replies = run(model, numbered)
    for tokens, vectors in zip(numbered, replies, strict=True):
        assert vectors.tolist() == [[len(item), item[0]] for item in tokens]
    assert all(len(batch) * max(batch) <= 64 for batch in model.batches)


def test_a_model_may_give_one_number_for_each_text():
    replies = run(lambda tokens: np.array([item[0] for item in tokens], dtype=np.float32), [[text(9, 3), text(2, 8)]])
    assert replies[0].tolist() == [3, 8]


def test_requests_that_wait_together_are_computed_together():
    model = Model()
    run(model, [[text(4)] for _ in range(9)], max_tokens=64)
    assert len(model.batches) <= 2


def test_a_long_request_does_not_block_a_short_one():
    model = Model()
    run(model, [[text(60) for _ in range(10)], [text(5)]])
    assert model.batches.index([5]) <= 1, model.batches


def test_short_texts_are_not_padded_to_long_ones():
    model = Model()
    run(model, [[text(30)], *([text(2)] for _ in range(6))], max_tokens=500)
    assert all(sum(batch) >= 0.5 * len(batch) * max(batch) for batch in model.batches), model.batches
    assert len(model.batches) == 2


def test_a_failure_reaches_the_request_and_the_next_one_works():
    async def one_after_another():
        batcher = Batcher(Model(), 64)
        with pytest.raises(RuntimeError, match="negative"):
            await batcher.compute([text(3, -1)])
        vectors = await batcher.compute([text(3, 7)])
        batcher.close()
        return vectors

    assert asyncio.run(one_after_another()).tolist() == [[3, 7]]

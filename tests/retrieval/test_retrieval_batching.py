from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.retrieval.batching import padding_share, token_batches

lengths_strategy = st.lists(st.integers(1, 600), max_size=200)


@given(lengths_strategy, st.integers(1, 5000))
def test_every_text_once_within_the_budget_longest_first(lengths, budget):
    batches = token_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) * longest <= budget or len(batch) == 1
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(flat, reverse=True)


@given(lengths_strategy, st.integers(1, 5000))
def test_no_batch_could_have_taken_the_next_text_too(lengths, budget):
    batches = token_batches(lengths, budget)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > budget


@given(lengths_strategy, st.integers(1, 5000))
def test_padding_is_a_share(lengths, budget):
    assert 0 <= padding_share(lengths, token_batches(lengths, budget)) < 1


def test_padding_share_of_known_batches():
    assert padding_share([4, 2, 3], [[0, 1], [2]]) == pytest.approx(2 / 11)
    assert padding_share([], []) == 0.0

"""BM25 candidates, against the formula written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_prep.mining.bm25 import Bm25Candidates

from pipeline.retrieval.bm25 import K1, B, Bm25Index

_WORDS = ["pump", "valve", "oil", "tank", "red"]
_TEXT = st.lists(st.sampled_from(_WORDS), max_size=6).map(" ".join)


def formula(passages: list[str], question: str) -> list[float]:
    """Robertson's BM25 in Lucene's form, one passage at a time; the words above have no stem but themselves."""
    texts = [text.split() for text in passages]
    mean = sum(map(len, texts)) / len(texts) or 1.0
    scores = []
    for text in texts:
        score = 0.0
        for word in question.split():
            holders = sum(word in other for other in texts)
            often = text.count(word)
            rarity = math.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
            if often:
                score += rarity * often / (often + K1 * (1 - B + B * len(text) / mean))
        scores.append(score)
    return scores


@given(st.lists(_TEXT, min_size=1, max_size=8), _TEXT, st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_scores_and_order_are_the_formula_s(passages, question, k):
    found, scores = Bm25Index(passages).top(question, k)
    expected = np.array(formula(passages, question))
    assert len(found) == min(k, int((expected > 0).sum())) == len(set(found.tolist()))
    np.testing.assert_allclose(scores, expected[found], rtol=1e-4)
    np.testing.assert_allclose(scores, np.sort(expected)[::-1][: len(found)], rtol=1e-4)
    for first, second in zip(range(len(found)), range(1, len(found)), strict=False):
        assert scores[first] > scores[second] or found[first] < found[second]


@given(st.lists(_TEXT, min_size=1, max_size=8), st.lists(_TEXT, min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_known_and_hidden_passages_take_nobody_s_place(mining_task, passages, questions, data):
    places = st.integers(0, len(passages) - 1)
    known = data.draw(
        st.lists(st.lists(places, min_size=1, max_size=3), min_size=len(questions), max_size=len(questions))
    )
    hidden = sorted(data.draw(st.sets(places, max_size=3)))
    k = data.draw(st.integers(1, 4))
    task = mining_task(passages, questions, known, hidden=hidden)
    row, passage = Bm25Candidates(task).of(range(len(task)), k)
    index, expected = Bm25Index(passages), []
    for number, question in enumerate(questions):
        best = index.top(question, len(passages))[0].tolist()
        allowed = [place for place in best if place not in known[number] and place not in hidden]
        expected += [(number, place) for place in allowed[:k]]
    assert list(zip(row.tolist(), passage.tolist(), strict=True)) == expected
    assert row.dtype == passage.dtype == np.int64


def test_of_equal_passages_the_first_are_taken():
    assert Bm25Index(["red pump"] * 50).top("pumps", 3)[0].tolist() == [0, 1, 2]


def test_title_words_count_and_stems_meet(mining_task):
    task = mining_task(["about rain", "Turn it."], ["leaking valves"], [[0]], titles=["", "The valve leaks"])
    assert Bm25Candidates(task).of(range(len(task)), 5)[1].tolist() == [1]


@pytest.mark.parametrize("passages", [[], ["", "the and"], ["pump"]])
def test_without_a_shared_word_there_is_no_candidate(passages):
    index = Bm25Index(passages)
    for question in ("", "the", "unknown word"):
        found, scores = index.top(question, 5)
        assert found.dtype == np.int64 and scores.dtype == np.float32 and len(found) == len(scores) == 0


@given(st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=8), _TEXT)
@settings(max_examples=60, deadline=None)
def test_scores_of_fields_are_added(passages, question):
    titles, texts = (list(column) for column in zip(*passages, strict=True))
    found, scores = Bm25Index(titles, texts).top(question, len(passages))
    expected = np.array(formula(titles, question)) + np.array(formula(texts, question))
    assert set(found) == set(np.flatnonzero(expected > 0))
    np.testing.assert_allclose(scores, expected[found], rtol=1e-5)

"""Rules on candidates, against plain loops."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pipeline_prep.duplicates import jaccard, shingles, words
from pipeline_prep.mining import rules
from pipeline_prep.mining.rules import contains_answer, is_telling, repeats_positive


def all_pairs(task):
    """Every passage as a candidate of every row."""
    rows, passages = len(task), task.corpus.num_rows
    return np.repeat(np.arange(rows), passages), np.tile(np.arange(passages), rows)


def holds(mining_task, answer: str, passage: str, title: str = "") -> bool:
    task = mining_task([passage], ["?"], [[0]], answers=[answer], titles=[title])
    return bool(contains_answer(task, *all_pairs(task))[0])


@pytest.mark.parametrize(
    ("answer", "passage", "found"),
    [
        ("The Red Pump", "Open THE  red-\npump, then wait.", True),
        ("the red pump", "the red pumpkin", False),
        ("the red pump", "bathe red pump", False),
        ("Wasserstraße Nord", "Die WASSERSTRASSE, Nord.", True),
        ("ﬁnal ofﬁce notice", "a final office notice came", True),
        ("cafe\u0301 at the port", unicodedata.normalize("NFC", "the cafe\u0301 at the port"), True),
        ("photosynthesis", "It is photosynthesis.", True),
        ("the red pump", "the red old pump", False),
        ("乘坐地铁二号线", "您可以乘坐地铁二号线前往。", True),
        ("乘坐地铁二号线", "您可以乘坐地铁三号线前往。", False),
    ],
)
def test_an_answer_is_found_whole_whatever_its_form(mining_task, answer, passage, found):
    assert holds(mining_task, answer, passage) is found


@pytest.mark.parametrize("answer", ["", "Yes.", "2019", "in 2019", "water pump", "...", "北京市"])
def test_an_answer_that_says_too_little_is_not_looked_for(mining_task, answer):
    assert not holds(mining_task, answer, f"{answer} {answer} and more")


def test_the_title_counts(mining_task):
    assert holds(mining_task, "how to bleed radiators", "Turn the key.", "How to bleed radiators")


@given(
    st.lists(st.lists(st.sampled_from(["a", "bb", "B.", "c c"]), max_size=8).map(" ".join), min_size=1, max_size=6),
    st.lists(st.lists(st.sampled_from(["a", "bb", "c"]), max_size=4).map(" ".join), min_size=1, max_size=5),
)
@example(["a bb c c"], ["a bb c", "bb c c", "c c a"])
@settings(max_examples=60, deadline=None)
def test_containing_is_what_a_plain_loop_finds(mining_task, passages, answers):
    task = mining_task(passages, ["?"] * len(answers), [[0]] * len(answers), answers=answers)
    row, passage = all_pairs(task)
    expected = []
    for number, place in zip(row, passage, strict=True):
        answer, text = words(answers[number]), words(passages[place])
        spans = [text[start : start + len(answer)] for start in range(len(text))]
        expected.append(is_telling(answer) and answer in spans)
    assert contains_answer(task, row, passage).tolist() == expected


def test_no_text_is_read_twice_for_an_answer(mining_task, monkeypatch):
    task = mining_task(["one two three", "four"], ["?"] * 5, [[0]] * 5, answers=["one two three"] * 4 + ["no"])
    read = []
    monkeypatch.setattr(rules, "full_text", lambda task, number: read.append(number) or task.text(number))
    assert contains_answer(task, *all_pairs(task)).tolist() == [True, False] * 4 + [False] * 2
    assert sorted(read) == [0, 1]


_TEXTS = st.lists(st.sampled_from("abcde"), max_size=9).map(" ".join)


@given(
    st.lists(_TEXTS, min_size=2, max_size=6),
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=2), min_size=1, max_size=5),
    st.sampled_from([0.2, 0.5, 0.8, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_repeating_is_what_a_plain_loop_finds(mining_task, passages, known, threshold):
    task = mining_task(passages, ["?"] * len(known), known)
    row, passage = all_pairs(task)
    expected = [
        any(jaccard(shingles(passages[place]), shingles(passages[key])) >= threshold for key in known[number])
        for number, place in zip(row, passage, strict=True)
    ]
    assert repeats_positive(task, row, passage, threshold).tolist() == expected


def test_rows_far_apart_keep_their_own_positives(mining_task, monkeypatch):
    monkeypatch.setattr(rules, "_ROWS_AT_ONCE", 2)
    texts = [f"{name} " * 3 + "valve opens when the tank is full of oil" for name in ("red", "blue", "green")]
    task = mining_task([*texts, *(text.upper() for text in texts)], ["?"] * 6, [[0], [1], [2]] * 2)
    row, passage = all_pairs(task)
    found = repeats_positive(task, row, passage, 0.9).reshape(6, 6)
    np.testing.assert_array_equal(found, np.tile(np.eye(3, dtype=bool), (2, 2)))


def test_no_candidates_are_no_trouble(mining_task):
    task = mining_task(["one"], ["?"], [[0]], answers=["some long answer here"])
    nothing = np.empty(0, np.int64)
    assert contains_answer(task, nothing, nothing).shape == repeats_positive(task, nothing, nothing, 0.8).shape == (0,)

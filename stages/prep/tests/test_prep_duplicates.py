from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_prep.duplicates import (
    jaccard,
    near_duplicate_pairs,
    near_duplicates_of,
    question_shingles,
    shingles,
    words,
)
from pipeline_prep.overlaps import FeatureSets, joined_pairs
from pipeline_prep.union_find import UnionFind

VOCABULARY = [f"{start}{end}" for start in ("ka", "lo", "mi", "nu", "pe") for end in range(100)]


def page(number: int, length: int = 150) -> list[str]:
    return random.Random(number).choices(VOCABULARY, k=length)


def changed(tokens: list[str], places: list[int]) -> str:
    return " ".join("other" if place in places else token for place, token in enumerate(tokens))


def test_case_punctuation_spacing_and_unicode_form_change_nothing():
    assert shingles("The PUMP stops,  at 5 bar!") == shingles("the pump stops at ５ bar")
    assert shingles("café au lait") == shingles("cafe\u0301 au lait")


def test_short_texts_are_alike_only_if_equal():
    assert jaccard(shingles("All rights reserved."), shingles("all rights reserved")) == 1
    assert jaccard(shingles("All rights reserved."), shingles("No rights reserved.")) == 0
    assert len(shingles("one two three four five")) == 1 and len(shingles("one two three four five six")) == 2


def test_scripts_without_spaces_have_shingles_too():
    text = "水泵在压力达到五巴时停止工作并发出警报信号" * 1
    near = text.replace("信号", "声音")
    assert words("水泵 stops") == ["水", "泵", "stops"]
    assert len(shingles(text)) == len(text) - 4
    assert 0.7 < jaccard(shingles(text), shingles(near)) < 1
    assert words("किताब की") == ["किताब", "की"], "vowel signs belong to their word"


def test_code_keeps_its_names_and_numbers():
    assert words("x = foo(bar_1)[2];") == ["x", "foo", "bar", "1", "2"]
    assert jaccard(shingles("return a + b"), shingles("return a + c")) == 0


def test_text_without_words():
    assert shingles("?!") == shingles(" ?! ") != shingles("--")
    assert shingles("") == shingles(" \n") == frozenset()
    assert jaccard(frozenset(), frozenset()) == 0
    assert near_duplicate_pairs(["", " ", "\n"], 0.5) == []
    assert near_duplicate_pairs([], 0.5) == []


def test_three_words_changed_in_a_page_are_found():
    texts = [" ".join(page(number)) for number in range(60)]
    texts.append(changed(page(7), [20, 75, 130]))
    texts.append(changed(page(8), list(range(0, 150, 10))))
    assert near_duplicate_pairs(texts, 0.8) == [(7, 60)]
    assert near_duplicates_of(texts[60:], texts[:60], 0.8).tolist() == [7, -1]


def test_copies_cost_one_pair_each():
    texts = [" ".join(page(1))] * 300
    pairs = near_duplicate_pairs(texts, 1.0)
    assert len(pairs) == 299 and all(i < j for i, j in pairs)


@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=9), max_size=12),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_pairs_join_what_all_pairs_join(items, threshold):
    texts = [" ".join(item) for item in items]
    features = [shingles(text) for text in texts]
    expected, found = UnionFind(range(len(texts))), UnionFind(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if jaccard(features[i], features[j]) >= threshold:
                expected.join((j, i))
    pairs = near_duplicate_pairs(texts, threshold)
    for pair in pairs:
        found.join(pair)
    assert all(jaccard(features[i], features[j]) >= threshold for i, j in pairs)
    assert sorted(found.groups()) == sorted(expected.groups())
    half = len(texts) // 2
    near = near_duplicates_of(texts[:half], texts[half:], threshold)
    wanted = [any(jaccard(one, other) >= threshold for other in features[half:]) for one in features[:half]]
    assert near.dtype == np.int64 and [number >= 0 for number in near] == wanted
    assert all(jaccard(features[i], features[half + j]) >= threshold for i, j in enumerate(near) if j >= 0)


@given(
    st.lists(st.frozensets(st.integers(0, 40), max_size=30), max_size=10), st.sampled_from([0.3, 0.5, 0.75, 0.8, 1.0])
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_join_finds_what_comparing_all_pairs_finds(items, threshold):
    items = [*items, *(item | {41} for item in items[:4]), *(item - {0, 1} for item in items[:4])]
    expected, found = UnionFind(range(len(items))), UnionFind(range(len(items)))
    for i, one in enumerate(items):
        for j in range(i):
            if jaccard(one, items[j]) >= threshold:
                expected.join((j, i))
    steps = list(joined_pairs(FeatureSets(items), threshold))
    for later, earlier in steps:
        if earlier >= 0:
            assert earlier < later and jaccard(items[earlier], items[later]) >= threshold
            assert found.root(earlier) != found.root(later), "joins what was not joined before"
            found.join((earlier, later))
    assert {frozenset(group) for group in found.groups()} == {frozenset(group) for group in expected.groups()}
    assert [later for later, earlier in steps if earlier < 0] == list(range(len(items)))


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), min_size=2, max_size=8), st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_texts_that_lie_in_another_are_found(items, data):
    threshold = data.draw(st.sampled_from([0.5, 0.8, 1.0]))
    items[-1] = [*data.draw(st.lists(st.sampled_from("abc"), max_size=40)), *items[0], *items[-1]]
    features = [shingles(" ".join(item)) for item in items]
    half = len(items) // 2
    found = near_duplicates_of(
        [" ".join(item) for item in items[:half]], [" ".join(item) for item in items[half:]], threshold, contained=True
    )
    for one, other in zip(features[:half], found.tolist(), strict=True):
        alike = [
            jaccard(one, two) >= threshold
            or (
                min(len(one), len(two)) >= 16
                and len(one & two) >= 2 * threshold / (1 + threshold) * min(len(one), len(two)) - 1e-9
            )
            for two in features[half:]
        ]
        assert other == (alike.index(True) if any(alike) else -1)


def test_a_text_inside_a_longer_one_counts_if_asked_for_and_long_enough():
    whole = page(3, 400)
    inside, heading = " ".join(whole[100:200]), " ".join(whole[:19])
    assert near_duplicates_of([inside, heading], [" ".join(whole)], 0.8, contained=True).tolist() == [0, -1]
    assert near_duplicates_of([" ".join(whole)], [heading, inside], 0.8, contained=True).tolist() == [1]
    assert near_duplicates_of([inside, heading], [" ".join(whole)], 0.8).tolist() == [-1, -1]


@pytest.fixture
def compared(monkeypatch):
    """How many pairs of texts were counted out, feature by feature."""
    counts, common = [], FeatureSets.common

    def counted(self, ranks, others):
        counts.append(len(others))
        return common(self, ranks, others)

    monkeypatch.setattr(FeatureSets, "common", counted)
    return counts


def test_texts_of_one_template_are_not_compared_pair_by_pair(compared):
    def own(number):
        return ["".join(random.Random(f"{number} {place}").choices("abcdefgh", k=6)) for place in range(14)]

    texts = [" ".join(own(number) + page(1, 100)) for number in range(150)]
    assert 0.6 < jaccard(shingles(texts[0]), shingles(texts[1])) < 0.8
    assert near_duplicate_pairs(texts, 0.85) == []
    assert near_duplicates_of(texts[:75], texts[75:], 0.85).tolist() == [-1] * 75
    assert sum(compared) < 150


def test_copies_of_one_page_are_compared_with_few_others(compared):
    pairs = near_duplicate_pairs([changed(page(1), [number]) for number in range(100)], 0.8)
    assert len(pairs) == 99 and sum(compared) < 100 * 10


@pytest.mark.parametrize(
    ("first", "second", "near"),
    [
        ("What is the maximum pressure of the pump?", "what is the maximum  pressure of the pump", True),
        ("What is the maximum pressure of the pump?", "What's the maximum pressure of the pump?", True),
        ("What is the maximum pressure of the pump?", "What is the maximum pressure of pumps?", True),
        ("What is the maximum pressure of the pump?", "Who repairs the pump when it leaks?", False),
        (
            "What was the total revenue of the company in 2019?",
            "What was the total revenue of the company in 2020?",
            False,
        ),
        ("水泵什么时候停止？", "水泵什么时候停止", True),
        ("水泵什么时候停止？", "谁来修理这台机器？", False),
    ],
)
def test_questions_are_compared_by_words_and_characters(first, second, near):
    assert (jaccard(question_shingles(first), question_shingles(second)) >= 0.75) == near


def test_hashes_are_the_same_in_every_process():
    code = "from pipeline_prep.duplicates import *; t='The pump stops at 5 bar or more'; "
    code += "print(sorted(shingles(t)), sorted(question_shingles(t)))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    text = "The pump stops at 5 bar or more"
    assert outputs == {f"{sorted(shingles(text))} {sorted(question_shingles(text))}\n".encode()}

from __future__ import annotations

import logging
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_prep.assign import SPLITS, assign
from pipeline_prep.document_groups import document_groups
from pipeline_prep.duplicates import jaccard, question_shingles
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.sdg_records import convert
from pipeline_prep.split import split_questions

from pipeline.errors import PipelineError
from pipeline.schemas.prep import PrepConfig

EVEN = {"train": 0.8, "val": 0.1, "test": 0.1}
LOG = logging.getLogger("pipeline.test")


def configured(ratios=EVEN, **keys):
    return PrepConfig(**{f"{name}_ratio": ratio for name, ratio in ratios.items()}, **keys)


def split(records, ratios=EVEN, seed=0, **keys):
    funnel = Funnel()
    converted = convert([(str(number), item) for number, item in enumerate(records)], 7.0, funnel)
    return split_questions(converted, configured(ratios, seed=seed, **keys), funnel, LOG).questions, funnel


def singles(count):
    return [[f"{number:03}.txt"] for number in range(count)]


def sizes(split_of):
    return {name: sum(side == name for side in split_of.values()) for name in SPLITS}


@pytest.mark.parametrize(
    ("count", "ratios", "expected"),
    [
        (100, (0.8, 0.1, 0.1), (80, 10, 10)),
        (100, (0.8, 0.0, 0.2), (80, 0, 20)),
        (100, (0.8, 0.2, 0.0), (80, 20, 0)),
        (100, (0.9, 0.1, 0.0), (90, 10, 0)),
        (100, (0.7, 0.2, 0.1), (70, 20, 10)),
        (7, (0.8, 0.1, 0.1), (5, 1, 1)),
        (3, (0.8, 0.1, 0.1), (1, 1, 1)),
        (2, (0.98, 0.0, 0.02), (1, 0, 1)),
    ],
)
def test_shares_are_met_by_largest_remainder_and_none_is_empty(count, ratios, expected):
    split_of = assign(singles(count), dict(zip(SPLITS, ratios, strict=True)), seed=1)
    assert tuple(sizes(split_of).values()) == expected


def test_too_few_documents_says_how_many_are_needed():
    with pytest.raises(PipelineError, match="at least 3 are needed") as error:
        assign(singles(2), EVEN, seed=0)
    assert "val_ratio=0" in error.value.fix
    with pytest.raises(PipelineError, match=r"2 independent documents .*\(5 documents, joined where"):
        assign([["a", "b", "c"], ["d", "e"]], EVEN, seed=0)


@pytest.mark.parametrize("ratios", [(0.8, 0.1, 0.1), (0.7, 0.1, 0.2), (0.9, 0.1, 0.0)])
def test_each_split_has_the_same_mix_of_query_types(ratios):
    draw = random.Random(4)
    groups = singles(400)
    kinds = ["contextual"] * 6 + ["keyword"] * 3 + ["multi_hop"]
    types = {group[0]: Counter(draw.choices(kinds, k=5)) for group in groups}
    split_of = assign(groups, dict(zip(SPLITS, ratios, strict=True)), 0, types)
    total = sum(types.values(), Counter())
    for name, ratio in zip(SPLITS, ratios, strict=True):
        count = sum((types[document] for document, side in split_of.items() if side == name), Counter())
        assert all(abs(count[kind] / total[kind] - ratio) < 0.01 for kind in total), (name, count)
    assert tuple(sizes(split_of).values()) == tuple(round(400 * ratio) for ratio in ratios)


def test_the_order_of_groups_moves_nothing():
    groups = [[f"{n}.txt", f"{n}b.txt"][: 1 + n % 2] for n in range(30)]
    types = {name: Counter({f"type {int(name[0]) % 3}": 2}) for group in groups for name in group}
    expected = assign(groups, EVEN, 3, types)
    assert assign(groups[::-1], EVEN, 3, types) == expected != assign(groups, EVEN, 4, types)


def test_large_groups_never_starve_a_split():
    split_of = assign([["a"] * 1 + [f"a{n}" for n in range(4)], [f"b{n}" for n in range(5)], ["c", "d"]], EVEN, seed=0)
    assert all(sizes(split_of).values())


def test_groups_are_transitive_and_sorted():
    groups = document_groups(["d", "a", "c", "b"], [("c", "x"), ("x", "a")])
    assert groups == [["a", "c", "x"], ["b"], ["d"]]


def test_documents_with_a_shared_passage_stay_together(record):
    records = [record(f"{n}.txt", [f"own {n}", f"pair {n // 2}"], [(f"q{n}", [1])]) for n in range(12)]
    for seed in range(5):
        splits, _ = split(records, seed=seed)
        side = {question.documents[0]: name for name in SPLITS for question in splits[name]}
        assert all(side[f"{n}.txt"] == side[f"{n + 1}.txt"] for n in range(0, 12, 2))


def test_identical_questions_are_merged_with_all_their_positives(record):
    records = [record(f"{n}.txt", [f"text {n}", "joins all"], [(f"q{n}", [1])]) for n in range(2)]
    records += [record(f"x{n}.txt", [f"other {n}"], [(f"other {n}", [1])]) for n in range(8)]
    records[0]["deduplicated_qa_pairs"][0]["question"] = "What is  it?"
    records[1]["deduplicated_qa_pairs"][0]["question"] = "what IS it"
    splits, funnel = split(records)
    (merged,) = [item for items in splits.values() for item in items if item.key == "what is it"]
    assert len(merged.positives) == 2 and merged.metadata["file_name"] == ["0.txt", "1.txt"]
    assert funnel.steps[-1].lost == {"identical question, merged": 1}


def test_a_merged_question_keeps_all_answers(record):
    records = [record(f"{n}.txt", [f"text {n}", "joins all"], [("What is it?", [1])]) for n in range(3)]
    records += [record(f"x{n}.txt", [f"other {n}"], [(f"other {n}", [1])]) for n in range(8)]
    for n, answer in enumerate(["a pump", "a valve", "a pump"]):
        records[n]["deduplicated_qa_pairs"][0]["answer"] = answer
    splits, _ = split(records)
    (merged,) = [item for items in splits.values() for item in items if item.key == "what is it"]
    assert merged.metadata["answer"] == "a pump" and merged.metadata["answers"] == ["a pump", "a valve"]
    assert all("answers" not in item.metadata for items in splits.values() for item in items if item is not merged)


def test_a_question_asked_in_two_splits_is_dropped_from_both(record):
    pairs = [("What is it?", [1])]
    records = [record(f"{n}.txt", [f"text {n}"], [*pairs, (f"own {n}", [1])]) for n in range(10)]
    splits, funnel = split(records)
    assert all(question.key != "what is it" for items in splits.values() for question in items)
    assert funnel.steps[-1].lost == {"asked in two splits": 10}


def test_a_split_that_loses_its_last_question_is_an_error(record):
    with pytest.raises(
        PipelineError, match=r"split has no question left: .* 10 independent documents .* at least 3 more"
    ):
        split([record(f"{n}.txt", [f"text {n}"], [("What is it?", [1])]) for n in range(10)])


@st.composite
def corpora(draw):
    """Documents that share passages and questions at random; ratios of any kind."""
    count = draw(st.integers(1, 14))
    words = st.integers(0, 25).map(lambda number: f"passage {number}")
    asked = st.integers(0, 30).map(lambda number: f"Question {number}?")
    documents = []
    for number in range(count):
        chunks = [f"own {number}", *draw(st.lists(words, max_size=2))]
        pairs = draw(st.lists(st.tuples(asked, st.just([len(chunks)])), min_size=1, max_size=3))
        documents.append((f"{number}.txt", chunks, pairs))
    ratios = draw(st.sampled_from([(0.8, 0.1, 0.1), (0.8, 0, 0.2), (0.8, 0.2, 0), (0.9, 0.1, 0), (0.34, 0.33, 0.33)]))
    return documents, dict(zip(SPLITS, ratios, strict=True)), draw(st.integers(0, 99))


@given(corpora())
@settings(max_examples=150, deadline=None)
def test_nothing_stands_on_two_sides(record, case):
    documents, ratios, seed = case
    records = [record(*item) for item in documents]
    shuffled = random.Random(seed).sample(records, len(records))
    try:
        splits, _ = split(records, ratios, seed)
    except PipelineError:
        with pytest.raises(PipelineError):
            split(shuffled, ratios, seed)
        return
    texts = {name: set(chunks) for name, chunks, _ in documents}
    for side in SPLITS:
        assert bool(splits[side]) == (ratios[side] > 0)
        for other in SPLITS:
            if side >= other:
                continue
            here, there = splits[side], splits[other]
            files = [{name for item in items for name in item.documents} for items in (here, there)]
            passages = [set().union(*(texts[name] for name in names)) for names in files]
            assert not files[0] & files[1], "a document on two sides"
            assert not passages[0] & passages[1], "a passage text on two sides"
            assert not {item.key for item in here} & {item.key for item in there}, "a question on two sides"
            assert not {key for item in here for key in item.positives} & {
                key for item in there for key in item.positives
            }, "a positive on two sides"
            for first in here:
                near = [jaccard(question_shingles(first.text), question_shingles(item.text)) for item in there]
                assert max(near, default=0) < 0.8, "a near-duplicate question on two sides"
    assert split(records, ratios, seed)[0] == splits, "the same seed gives the same split"
    again = split(shuffled, ratios, seed)[0]
    assert {side: [item.id for item in again[side]] for side in SPLITS} == {
        side: [item.id for item in splits[side]] for side in SPLITS
    }, "the order of the input moves nothing"

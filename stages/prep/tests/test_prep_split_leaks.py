"""What must not stand on two sides though it is not the same word for word; given splits; user's groups."""

from __future__ import annotations

import json
import logging
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_prep.assign import SPLITS
from pipeline_prep.document_groups import document_texts, near_duplicate_ties
from pipeline_prep.duplicates import jaccard, question_shingles, shingles
from pipeline_prep.funnel import Funnel
from pipeline_prep.questions import Converted, Question, question_id
from pipeline_prep.split import split_questions

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, passage_id
from pipeline.schemas.prep import PrepConfig

SYLLABLES = ["ka", "lo", "mi", "nu", "pe", "ru", "so", "ta", "ve", "zi"]
PAIRS = {(one, other): one != other for one in SPLITS for other in SPLITS if one < other}


def prose(number, length=60):
    """Words drawn at random, like no other number's."""
    draw = random.Random(number)
    return " ".join("".join(draw.choices(SYLLABLES, k=3)) for _ in range(length))


def edited(text, *places):
    return " ".join("changed" if place in places else word for place, word in enumerate(text.split(" ")))


class Corpus:
    """Documents given as passages and (question, number of the passage)."""

    def __init__(self):
        self.passages, self.questions, self.given = {}, [], {}

    def add(self, name, texts, asked, side=None):
        for text in texts:
            key = passage_id(text)
            documents = (*self.passages[key].documents, name) if key in self.passages else (name,)
            self.passages[key] = Passage(key, text, "", documents)
        for text, number in asked:
            key = question_id(text, (name,))
            positives = (passage_id(texts[number]),)
            self.questions.append(Question(key, text, (name,), positives, {"file_name": [name]}, name))
            if side:
                self.given[key] = side
        return self

    def converted(self):
        ties = [item.documents for item in self.passages.values() if len(item.documents) > 1]
        return Converted(self.passages, self.questions, ties, self.given)

    def split(self, **keys):
        self.funnel = Funnel()
        return split_questions(self.converted(), PrepConfig(**keys), self.funnel, logging.getLogger("pipeline.test"))

    @property
    def lost(self):
        return self.funnel.steps[-1].lost


def plain(count, start=0):
    corpus = Corpus()
    for number in range(start, start + count):
        text = [prose(1000 + number), prose(2000 + number)]
        corpus.add(f"{number:02}.md", text, [(prose(3000 + number, 6), 0), (prose(4000 + number, 6), 1)])
    return corpus


def side_of(splits):
    return {question.documents[0]: name for name in SPLITS for question in splits[name]}


def texts(splits, name):
    return {question.text for question in splits[name]}


@pytest.mark.parametrize("seed", range(4))
def test_a_document_with_three_words_changed_stays_with_its_original(seed):
    corpus = plain(10)
    page = f"{prose(5000)} {prose(5001)} {prose(5002)}"
    for number, name in enumerate(["orig.md", "copy.md", "copy2.md"]):
        text = edited(page, 20, 90, 150) if number else page
        corpus.add(name, [f"{text} {number}"], [(prose(6000 + number, 6), 0)])
    splits = corpus.split(seed=seed)
    side = side_of(splits)
    assert side["orig.md"] == side["copy.md"] == side["copy2.md"]
    assert splits.counts["near_duplicate_documents"] == 3 and splits.counts["groups"] == 11


@pytest.mark.parametrize("seed", range(4))
def test_documents_with_a_nearly_equal_passage_stay_together(seed):
    corpus = plain(10)
    for number in range(2):
        shared = edited(prose(7000), *([30] if number else []))
        corpus.add(f"shared{number}.md", [prose(7100 + number, 200), shared], [(prose(7200 + number, 6), 0)])
    splits = corpus.split(seed=seed)
    side = side_of(splits)
    assert side["shared0.md"] == side["shared1.md"]
    assert splits.counts["near_duplicate_passages"] == 2 and splits.counts["near_duplicate_documents"] == 0
    assert splits.counts["groups"] == 11


def boilerplate(count):
    corpus = plain(count)
    for number, name in enumerate(sorted({question.documents[0] for question in corpus.questions})):
        corpus.add(name, [edited(prose(8000, 150), number), f"All rights reserved by number {number}."], [])
    return corpus


def test_boilerplate_and_stock_phrases_join_nothing():
    splits = boilerplate(40).split()
    assert splits.counts["groups"] == 40 and splits.counts["near_duplicate_passages"] == 0
    assert splits.counts["boilerplate_passages"] == 1


def test_a_question_that_boilerplate_answers_is_not_asked_on_both_sides():
    corpus = boilerplate(40)
    for number in range(40):
        corpus.add(f"{number:02}.md", [edited(prose(8000, 150), number)], [(prose(9000 + number, 6), 0)])
    splits = corpus.split()
    assert corpus.lost == {"answered by a test passage": 36}
    assert {passage_id(edited(prose(8000, 150), number)) for number in range(40)} <= splits.hidden


def test_near_duplicates_may_be_switched_off():
    corpus = Corpus()
    for number in range(2):
        corpus.add(f"{number}.md", [edited(prose(1), number)], [(f"what about {prose(2, 9)} {'ab'[number]}", 0)])
    with pytest.raises(PipelineError, match=r"1 independent documents with questions \(2 documents, joined"):
        corpus.split(train_ratio=0.5, val_ratio=0, test_ratio=0.5, near_duplicate_questions=None)
    splits = corpus.split(
        train_ratio=0.5, val_ratio=0, test_ratio=0.5, near_duplicate_threshold=None, near_duplicate_questions=None
    )
    assert len(splits["train"]) == len(splits["test"]) == 1


def test_the_test_set_keeps_its_near_duplicate_questions_then_validation():
    corpus = plain(10)
    for number in range(10):
        name = f"{number:02}.md"
        question = f"How does the pump {'abcdefghij'[number] * 3} of the {prose(1, 8)} stop?"
        corpus.add(name, [prose(1000 + number)], [(question, 0)])
    splits = corpus.split(near_duplicate_questions=0.8)
    vague = {name: [text for text in texts(splits, name) if "How does" in text] for name in SPLITS}
    assert not vague["train"] and not vague["val"] and vague["test"]
    assert corpus.lost == {"near-duplicate of a test question": 9}


def test_given_splits_are_kept_and_the_others_cut_out_of_train():
    corpus = plain(10)
    corpus.given = {question.id: "train" for question in corpus.questions}
    corpus.add("t.md", [prose(1), prose(2)], [(prose(3, 6), 0)], "test")
    corpus.add("t.md", [prose(2)], [(prose(4, 6), 0)], "train")  # the document of a test question
    corpus.add("copy.md", [f"{edited(prose(1), 20)}\n{prose(2)} more"], [(prose(5, 6), 0)], "train")  # and its copy
    corpus.add("u.md", [prose(6), edited(prose(1), 25)], [(prose(7, 6), 1), (prose(8, 6), 0)], "train")  # its answer
    corpus.add("v.md", [prose(9)], [(f"{prose(3, 6)}?", 0), (prose(10, 6), 0)], "train")  # its question
    splits = corpus.split()
    assert texts(splits, "test") == {prose(3, 6)}
    assert corpus.lost == {
        "document of a test question": 2,
        "answered by a test passage": 1,
        "near-duplicate of a test question": 1,
    }
    kept = texts(splits, "train") | texts(splits, "val")
    assert {prose(8, 6), prose(10, 6)} <= kept and len(kept) == 22
    holds_it = passage_id(f"{edited(prose(1), 20)}\n{prose(2)} more")
    assert splits["val"] and splits.hidden == {passage_id(prose(1)), passage_id(edited(prose(1), 25)), holds_it}


def test_all_splits_given():
    corpus = Corpus()
    for number, side in enumerate(["train"] * 3 + ["val", "test"]):
        corpus.add(f"{number}.md", [prose(number)], [(prose(100 + number, 6), 0)], side)
    corpus.add("3.md", [prose(3)], [(f"{prose(100, 6)}!", 0)], "val")
    splits = corpus.split()
    assert {name: len(splits[name]) for name in SPLITS} == {"train": 2, "val": 2, "test": 1}
    assert corpus.lost == {"near-duplicate of a val question": 1}


def test_an_identical_question_of_a_given_test_set_is_one_with_all_its_positives():
    corpus = plain(4)
    corpus.add("a.md", [prose(1)], [(prose(3, 6), 0)], "test").add("b.md", [prose(2)], [(prose(3, 6), 0)], "test")
    (question,) = corpus.split()["test"]
    assert set(question.positives) == {passage_id(prose(1)), passage_id(prose(2))}
    assert corpus.lost == {"identical question, merged": 1}


def test_a_training_set_that_the_test_set_takes_whole_is_an_error():
    corpus = Corpus().add("a.md", [prose(1)], [(prose(2, 6), 0)], "test").add("a.md", [prose(1)], [(prose(3, 6), 0)])
    told = r"no question is left for training.*document of a test question 1: at least 2 independent documents"
    with pytest.raises(PipelineError, match=told):
        corpus.split()


def test_groups_of_the_user_stay_together(tmp_path):
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({"semantic": {"clusters": {"a": ["00.md", "05.md"], "b": ["01.md", "06.md", "x.md"]}}}))
    for seed in range(4):
        splits = plain(12).split(split_strategy="cluster", groups_json=[str(path)], seed=seed)
        side = side_of(splits)
        assert side["00.md"] == side["05.md"] and side["01.md"] == side["06.md"]
        assert splits.counts["groups"] == 10


def test_documents_of_one_passage_beside_shared_passages_are_still_compared():
    corpus = Corpus().add("a.md", [prose(1)], []).add("b.md", [edited(prose(1), 30), prose(2)], [])
    for name in ("c.md", "d.md", "e.md"):
        corpus.add(name, [prose(3)], [])
    asked = {f"{letter}.md" for letter in "abcde"}
    assert ("a.md", "b.md") in near_duplicate_ties(list(corpus.passages.values()), asked, 0.8).ties


def test_near_ties_look_at_no_document_without_questions():
    corpus = plain(3)
    corpus.add("unasked.md", [edited(prose(1000), 3)], [])
    passages = list(corpus.passages.values())
    asked = {"00.md", "01.md", "02.md"}
    assert near_duplicate_ties(passages, asked, 0.8).ties == []
    assert near_duplicate_ties(passages, asked | {"unasked.md"}, 0.8).ties == [("00.md", "unasked.md")]


@st.composite
def corpora(draw):
    """Documents that repeat each other, or passages and questions, now and then with some words changed."""
    count = draw(st.integers(3, 12))
    places = st.lists(st.integers(0, 29), max_size=3)
    documents = []
    for number in range(count):
        copied = draw(st.integers(0, number))
        chunks = [prose(number, 90) if copied == number else edited(documents[copied][1][0], *draw(places))]
        for source in draw(st.lists(st.integers(0, 40), max_size=1)):
            chunks.append(edited(prose(100 + source, 30), *draw(places)))
        asked = []
        for source in draw(st.lists(st.integers(0, 30), min_size=1, max_size=3, unique=True)):
            asked.append((edited(prose(200 + source, 12), *draw(places)), draw(st.integers(0, len(chunks) - 1))))
        documents.append((f"{number}.md", chunks, asked))
    return (
        documents,
        draw(st.sampled_from([(0.8, 0.1, 0.1), (0.8, 0, 0.2), (0.34, 0.33, 0.33)])),
        draw(st.integers(0, 9)),
    )


@given(corpora())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_nothing_alike_stands_on_two_sides(case):
    documents, ratios, seed = case
    keys = dict(zip(("train_ratio", "val_ratio", "test_ratio"), ratios, strict=True), seed=seed)
    corpora = [Corpus(), Corpus()]
    for corpus, order in zip(corpora, (documents, random.Random(seed).sample(documents, len(documents))), strict=True):
        for document in order:
            corpus.add(*document)
    outcomes = []
    for corpus in corpora:
        try:
            outcomes.append(corpus.split(**keys))
        except PipelineError as error:
            outcomes.append(error.message)
    if isinstance(outcomes[0], str):
        assert outcomes[0] == outcomes[1]
        return
    splits = outcomes[0]
    found = [{name: [item.id for item in outcome[name]] for name in SPLITS} for outcome in outcomes]
    assert found[0] == found[1] and outcomes[0].hidden == outcomes[1].hidden, "the order of the input moves nothing"
    assert all(bool(splits[name]) == (keys[f"{name}_ratio"] > 0) for name in SPLITS)
    whole = document_texts(corpora[0].passages.values(), {name for name, _, _ in documents})
    sides = {name: {doc for item in splits[name] for doc in item.documents} for name in SPLITS}
    for one, other in PAIRS:
        assert not sides[one] & sides[other]
        for first in sides[one]:
            assert all(jaccard(shingles(whole[first]), shingles(whole[second])) < 0.8 for second in sides[other])
        for item in splits[one]:
            near = (jaccard(question_shingles(item.text), question_shingles(second.text)) for second in splits[other])
            assert max(near, default=0) < 0.8
    answers = [shingles(corpora[0].passages[key].text) for item in splits["test"] for key in item.positives]
    for name in ("train", "val"):
        for key in {key for item in splits[name] for key in item.positives}:
            own = shingles(corpora[0].passages[key].text)
            assert all(jaccard(own, answer) < 0.8 for answer in answers) and key not in splits.hidden

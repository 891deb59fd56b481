from __future__ import annotations

import logging

import pytest
from pipeline_prep.funnel import Funnel
from pipeline_prep.questions import Converted, Question
from pipeline_prep.split import split_questions

from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, write_beir
from pipeline.records.passages import Passage, passage_id
from pipeline.schemas.prep import PrepConfig

FIRST = "The pump stops as soon as the pressure in the tank is higher than five bar and the red lamp is lit. "
ANSWER = FIRST + "It starts again when the pressure falls below three bar or when somebody presses the green button."
NEAR = ANSWER.replace("green", "blue")
OTHER = "Bees return to the hive before the rain begins, and the guards at the entrance let nobody else come in."
TEST_QUESTION = "When does the pump of the tank stop by itself?"


@pytest.fixture
def frozen(tmp_path):
    corpus = {
        "p1": Passage("p1", ANSWER, "", ("guide/pump.md",)),
        "p2": Passage("p2", OTHER, "", ("bees.md",)),
    }
    queries, qrels = {"q1": TEST_QUESTION}, {"q1": {"p1": 1}}
    metadata = {"q1": {"file_name": ["named.md"]}}
    return write_beir(tmp_path / "earlier", TestSet("test", corpus, queries, qrels, metadata))


def corpus_of(items):
    """(question, document, passage) -> a corpus where each question has one positive."""
    passages, questions = {}, []
    for text, document, passage in items:
        key = passage_id(passage)
        passages[key] = Passage(key, passage, "", (document,))
        questions.append(Question(f"q_{len(questions)}", text, (document,), (key,), {}, document))
    return Converted(passages, questions, [])


def split(converted, frozen, **keys):
    funnel = Funnel()
    config = PrepConfig(frozen_eval=str(frozen), **keys)
    return split_questions(converted, config, funnel, logging.getLogger("pipeline.test")), funnel


LEAKS = [
    ("Who repairs it?", "guide/pump.md", "Call the workshop if the pump leaks.", "document of a test question"),
    ("Is it loud?", "named.md", "The noise is about sixty decibels.", "document of a test question"),
    ("What lights up?", "copied.md", NEAR, "document of a test question"),
    ("What does the lamp mean?", "moved.md", ANSWER, "document of a test question"),
    (f" {TEST_QUESTION.upper()}", "x.md", "Read the manual of the new model.", "near-duplicate of a test question"),
    ("when does the tank's pump stop by itself", "y.md", "See page nine.", "near-duplicate of a test question"),
]
ITEMS = ("ladder", "hammer", "kettle", "bucket", "sponge", "carpet", "mirror", "candle", "pillow", "basket")
FINE = [(f"Where is the {item} kept?", f"{item}.md", f"The {item} is kept in room {item}.") for item in ITEMS]


def test_questions_on_its_documents_passages_and_questions_leave_training(frozen):
    converted = corpus_of([*[leak[:3] for leak in LEAKS], *FINE])
    splits, funnel = split(converted, frozen, near_duplicate_questions=0.7)
    assert {line["question"]: line["reason"] for line in funnel.rejected} == {leak[0]: leak[3] for leak in LEAKS}
    assert splits["test"] == [] and len(splits["val"]) == 1 and len(splits["train"]) == 9
    assert splits.hidden == {passage_id(ANSWER), passage_id(NEAR)}
    assert splits.frozen.queries == {"q1": TEST_QUESTION} and set(splits.frozen.corpus) == {"p1", "p2"}


def test_a_document_that_holds_a_whole_test_document_leaves_with_all_its_questions(frozen):
    converted = corpus_of([("What lights up?", "long.md", NEAR), *FINE])
    rest = (
        "Page after page of something else altogether, about gardens and flowers and their many different names. " * 3
    )
    converted.passages["d_rest"] = Passage("d_rest", rest, "", ("long.md",))
    converted.questions.append(Question("q_rest", "Which flowers?", ("long.md",), ("d_rest",), {}, "long.md"))
    splits, funnel = split(converted, frozen)
    assert {(line["question"], line["reason"]) for line in funnel.rejected} == {
        ("What lights up?", "document of a test question"),
        ("Which flowers?", "document of a test question"),
    }
    assert splits.hidden == {passage_id(NEAR)} and splits.apart >= {passage_id(NEAR), "d_rest"}


def test_without_near_duplicates_the_same_text_still_counts(frozen):
    converted = corpus_of([("What is lit?", "a.md", ANSWER), ("What is blue?", "b.md", NEAR), *FINE])
    splits, funnel = split(converted, frozen, near_duplicate_threshold=None, near_duplicate_questions=None)
    assert [line["question"] for line in funnel.rejected] == ["What is lit?"]
    assert splits.hidden == {passage_id(ANSWER)}


def test_the_test_questions_of_the_input_are_replaced(frozen):
    converted = corpus_of(FINE)
    converted.given["q_0"] = "test"
    splits, funnel = split(converted, frozen)
    assert [line["reason"] for line in funnel.rejected] == ["frozen_eval replaces the test set"]
    assert sum(len(splits[name]) for name in ("train", "val")) == 9


def test_training_that_it_takes_whole_is_an_error(frozen):
    with pytest.raises(PipelineError, match=r"no question is left for training.*near-duplicate of a test question 1"):
        split(corpus_of([(TEST_QUESTION, "z.md", "Something.")]), frozen)


def test_a_folder_that_is_no_test_set_is_an_error(tmp_path, frozen):
    with pytest.raises(PipelineError, match=r"absent.corpus\.jsonl does not exist"):
        split(corpus_of(FINE), tmp_path / "absent")
    (frozen / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tp1\t0\n")
    with pytest.raises(PipelineError, match=r"qrels/test\.tsv judges no passage relevant"):
        split(corpus_of(FINE), frozen)

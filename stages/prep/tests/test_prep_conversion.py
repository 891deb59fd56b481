from __future__ import annotations

import random
import weakref

import pytest
from pipeline_prep.funnel import Funnel, Loss
from pipeline_prep.inputs.sdg_records import convert
from pipeline_prep.questions import question_id

from pipeline.errors import PipelineError
from pipeline.records.passages import passage_id


def run(records, threshold=7.0, minimums=None):
    funnel = Funnel()
    return convert(((f"file: record {n}", item) for n, item in enumerate(records)), threshold, funnel, minimums), funnel


def lost(funnel):
    return {reason: count for step in funnel.steps for reason, count in step.lost.items()}


def test_question_and_passages_keep_where_they_come_from(record):
    converted, funnel = run([record("a.txt", ["one", "two"], [("Which?", [2, 1])])])
    (question,) = converted.questions
    assert question.id == question_id("Which?", ("a.txt",)) and len(question.id) == 18
    assert question.positives == (passage_id("two"), passage_id("one"))
    assert question.metadata == {
        "query_type": "contextual", "reasoning_type": "factual", "hop_count": 1, "question_complexity": 2,
        "quality_score": 9.0, "answer": "answer to Which?", "hop_contexts": [], "file_name": ["a.txt"],
        "segment_ids": [2, 1], "criteria": {},
    }  # fmt: skip
    assert converted.passages[passage_id("one")].documents == ("a.txt",)
    assert [step.left for step in funnel.steps] == [1, 1, 1] and not funnel.rejected


def test_every_bad_pair_is_counted_and_has_an_example_line(record):
    bad = record("a.txt", ["one", " "], [("", [1]), ("   ", [1]), ("q1", []), ("q2", [9]), ("q3", [2]), ("good", [1])])
    bad["deduplicated_qa_pairs"] += [{"question": "q4", "segment_ids": "1"}, {"question": "q5"}, "not an object"]
    bad["qa_evaluations"]["evaluations"] += [{"overall": {"score": 9}}] * 3
    converted, funnel = run([bad])
    assert [question.text for question in converted.questions] == ["good"]
    assert lost(funnel) == {"pair unreadable": 2, "empty question": 2, "no segments": 2, "unknown segment": 2}
    assert len(funnel.rejected) == 8
    assert set(funnel.rejected[0]) == {"reason", "step", "where", "question", "detail"}
    assert {(line["step"], line["where"]) for line in funnel.rejected} == {("kept", "file: record 0")}


def test_repeated_segments_and_chunks_of_equal_text_give_one_positive(record):
    converted, _ = run([record("a.txt", ["same", "other", "same"], [("q", [1, 1, 3])])])
    assert converted.questions[0].positives == (passage_id("same"),)
    assert len(converted.passages) == 2


@pytest.mark.parametrize(
    ("scores", "kept", "reasons"),
    [
        ([9, 7.0, 6.9], ["q0", "q1"], {"below quality_threshold": 1}),
        ([None, None, 2], ["q0", "q1"], {"below quality_threshold": 1}),
        ([9], ["q0"], {"not judged": 2}),
        ([], [], {"not judged": 3}),
        ([9, 9, 9, 9], [], {"judgements do not match": 3}),
        ([9, "8", float("nan")], ["q0"], {"judgement unreadable": 2}),
        ([True, 9, 9], ["q1", "q2"], {"judgement unreadable": 1}),
        ([10**400, float("-inf"), 9], ["q2"], {"judgement unreadable": 2}),
        (None, ["q0", "q1", "q2"], {}),
    ],
)
def test_judgements(record, scores, kept, reasons):
    converted, funnel = run([record("a.txt", ["t"], [(f"q{n}", [1]) for n in range(3)], scores)])
    assert [question.text for question in converted.questions] == kept
    assert lost(funnel) == reasons


@pytest.mark.parametrize(("drop", "kept"), [(True, ["q0", "q2"]), (False, ["q0", "q1", "q2"])])
def test_pairs_that_their_passages_cannot_answer(record, drop, kept):
    item = record("a.txt", ["t"], [(f"q{n}", [1]) for n in range(3)], [9, 9, 9])
    for evaluation, found in zip(item["qa_evaluations"]["evaluations"], (True, False, None), strict=True):
        evaluation["answerable"] = found
    funnel = Funnel()
    converted = convert([("here", item)], 7.0, funnel, drop_unanswerable=drop)
    assert [question.text for question in converted.questions] == kept
    assert lost(funnel) == ({"not answerable": 1} if drop else {})


def test_how_a_question_is_asked_comes_along(record):
    item = record("a.txt", ["t"], [("Whcih?", [1]), ("Which?", [1])])
    item["deduplicated_qa_pairs"][0] |= {"query_style": "typo", "clean_question": "Which?"}
    typed, plain = sorted(run([item])[0].questions, key=lambda question: question.text)
    assert (typed.metadata["query_style"], typed.metadata["clean_question"]) == ("typo", "Which?")
    assert "query_style" not in plain.metadata


def test_judgements_as_a_plain_list_and_without_overall(record):
    item = record("a.txt", ["t"], [("q0", [1]), ("q1", [1])], None, qa_evaluations=[{"overall": {"score": 8}}, {}])
    converted, funnel = run([item])
    assert [question.metadata["quality_score"] for question in converted.questions] == [8.0]
    assert lost(funnel) == {"judgement unreadable": 1}


def test_single_criteria_are_kept_and_have_minimums_of_their_own(record):
    item = record("a.txt", ["t"], [(f"q{n}", [1]) for n in range(4)])
    for evaluation, accuracy in zip(item["qa_evaluations"]["evaluations"], (9, 5, None, "high"), strict=True):
        evaluation |= {"accuracy": {"score": accuracy}, "clarity": {"score": float("nan")}, "improvements": "none"}
    converted, funnel = run([item], minimums={"accuracy": 6})
    assert [question.metadata["criteria"] for question in converted.questions] == [{"accuracy": 9.0}, {}]
    assert lost(funnel) == {"below criterion_minimums": 1, "judgement unreadable": 1}
    assert [line["detail"] for line in funnel.rejected] == ["accuracy 5 < 6", "accuracy.score is 'high'"]
    assert len(run([item], minimums={"overall": 9.5})[0].questions) == 0


def test_the_funnel_has_a_row_for_each_reason_with_an_example(record):
    item = record("a.txt", ["t"], [("Bad?", [1]), ("Worse?", [1]), ("", [1]), ("Good?", [1])], [1, 2, 9, 9])
    _, funnel = run([item])
    assert funnel.table() == [
        Loss("read", 4, 0, "", ""),
        Loss("judged", 2, 2, "below quality_threshold", "Bad?"),
        Loss("kept", 1, 1, "empty question", ""),
    ]


def test_a_loss_can_be_noted_for_a_later_step():
    funnel = Funnel()
    funnel.reject("late", "x:1", "\ud800" + "long " * 1000, step="second")
    funnel.reject("early", "x:2", "q")
    funnel.close("first", 2)
    funnel.close("second", 1)
    assert [step.lost for step in funnel.steps] == [{"early": 1}, {"late": 1}]
    line = funnel.rejected[0]
    assert line["step"] == "second" and len(line["question"].encode()) < 1100


def test_values_that_json_cannot_hold_become_null_or_text(record):
    item = record("a.txt", ["t"], [("q", [1.0])])
    item["deduplicated_qa_pairs"][0] |= {
        "question_complexity": float("inf"),
        "answer": "\ud800!",
        "hop_contexts": [b"x"],
    }
    metadata = run([item])[0].questions[0].metadata
    assert (metadata["question_complexity"], metadata["answer"], metadata["hop_contexts"]) == (None, "?!", ["b'x'"])
    item["deduplicated_qa_pairs"][0]["question"] = "\ud800"
    assert lost(run([item])[1]) == {"pair unreadable": 1}


def test_one_record_is_held_at_a_time(record):
    class Record(dict):
        """A dict that can be watched."""

    alive = []

    def records():
        for number in range(5):
            held = Record(record(f"{number}.txt", [f"t{number}"], [("q", [1])]))
            alive.append(weakref.ref(held))
            yield f"x:{number}", held
            del held
            assert sum(item() is not None for item in alive) <= 1  # the caller's loop still names this one

    assert len(convert(records(), 7.0, Funnel()).questions) == 5


def test_an_unjudged_pair_is_kept_and_counted(record):
    converted, funnel = run([record("a.txt", ["t"], [("q0", [1]), ("q1", [1])], [None, 9])])
    assert converted.questions[0].metadata["quality_score"] is None
    assert funnel.steps[1].note == "1 of them unjudged"


def test_the_corpus_holds_chunks_without_questions_and_all_their_sources(record):
    converted, _ = run([
        record("b.txt", ["shared", "only b"], [("q", [1])]),
        record("a.txt", ["shared"], []),
        record(["c.txt", "d.txt"], ["bundle"], []),
    ])  # fmt: skip
    documents = {passage.text: passage.documents for passage in converted.passages.values()}
    assert documents == {"shared": ("a.txt", "b.txt"), "only b": ("b.txt",), "bundle": ("c.txt", "d.txt")}
    assert sorted(map(sorted, converted.ties)) == [["a.txt", "b.txt"], ["c.txt", "d.txt"]]


def test_documents_stand_in_order_with_their_chunks_and_pairs_as_written(record):
    second = record("b.txt", ["z", "a"], [("y?", [1]), ("x?", [2])])
    converted, _ = run([second, record("a.txt", ["m"], [("w?", [1])])])
    assert [passage.text for passage in converted.passages.values()] == ["m", "z", "a"]
    assert [question.text for question in converted.questions] == ["w?", "y?", "x?"]


def test_a_chunk_of_a_bundle_names_its_own_document(record):
    bundle = record(["c.txt", "d.txt"], ["first", "second"], [])
    bundle["chunks"][0]["doc_id"] = "c.txt"
    converted, _ = run([bundle])
    assert converted.passages[passage_id("first")].documents == ("c.txt",)


def test_the_order_of_the_records_does_not_matter(record, corpus_records):
    records = [*corpus_records, record("bees.txt", ["again"], [("What else?", [1])])]
    shuffled = random.Random(3).sample(records, len(records))
    one, two = run(records)[0], run(shuffled)[0]
    assert [(q.id, q.positives) for q in one.questions] == [(q.id, q.positives) for q in two.questions]
    assert list(one.passages.values()) == list(two.passages.values())
    assert [p.documents for p in one.passages.values()] == [p.documents for p in two.passages.values()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunks": {}}, "chunks must be a list, found dict"),
        ({"deduplicated_qa_pairs": None}, "deduplicated_qa_pairs must be a list"),
        ({"chunks": [{"chunk_id": 1}]}, "chunk 0 needs chunk_id and text"),
        ({"chunks": [{"chunk_id": 1, "text": "a"}, {"chunk_id": "1", "text": "b"}]}, "chunk_id '1' stands twice"),
        ({"chunks": [{"chunk_id": 1, "text": "\ud800"}]}, "half of a surrogate pair"),
        ({"file_name": ["\ud800"]}, "file_name holds half of a surrogate pair"),
    ],
)
def test_a_malformed_record_is_one_clear_error(record, change, message):
    with pytest.raises(PipelineError, match=message) as error:
        run([record("a.txt", ["t"], []) | change])
    assert "file: record 0" in str(error.value)


def test_passages_that_pooled_judging_found_are_positives_and_hold_their_documents_together(record):
    asked = record("a.txt", ["the valve opens at two bar", "second"], [("When does the valve open?", [1])])
    other = record("b.txt", ["above two bar the valve is open"], [])
    found = passage_id("above two bar the valve is open")
    asked["deduplicated_qa_pairs"][0]["extra_positives"] = [found, "d_unknown", passage_id("second")]
    made, _ = run([asked, other])
    (question,) = made.questions
    assert question.positives == (passage_id("the valve opens at two bar"), found, passage_id("second"))
    assert ("a.txt", "b.txt") in made.ties and question.metadata["extra_positives"][0] == found

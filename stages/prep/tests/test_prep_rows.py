from __future__ import annotations

from pipeline_prep.questions import Question
from pipeline_prep.rows import training_rows, unroll


def question(*positives):
    return Question("q_1", "Which?", ("a.txt",), positives, {"query_type": "contextual"}, "here")


def test_positives_beyond_the_limit_stay_known():
    (row,) = training_rows([question("d_1", "d_2", "d_3")], "corpus", max_pos_docs=2)
    assert row.positives == ["d_1", "d_2"]
    assert row.known_positives == {"d_1", "d_2", "d_3"}
    assert row.to_json()["metadata"] == {"query_type": "contextual"}


def test_unrolled_rows_keep_their_lineage():
    rows = training_rows([question("d_1", "d_2", "d_3")], "corpus", max_pos_docs=2)
    rows[0].negatives, rows[0].negative_scores = ["d_9"], {"d_9": 0.25}
    rows[0].positive_scores = {"d_1": 0.5, "d_2": 0.75}
    first, second = (row.to_json() for row in unroll(rows))
    assert (first["question_id"], second["question_id"]) == ("q_1_0", "q_1_1")
    assert first["original_question_id"] == second["original_question_id"] == "q_1"
    assert first["known_pos_ids"] == second["known_pos_ids"] == ["d_1", "d_2", "d_3"]
    assert first["pos_doc"] == [{"id": "d_1", "score": 0.5}] and second["pos_doc"] == [{"id": "d_2", "score": 0.75}]
    assert first["neg_doc"] == second["neg_doc"] == [{"id": "d_9", "score": 0.25}]


def test_a_row_with_one_positive_keeps_its_id():
    (row,) = unroll(training_rows([question("d_1")], "corpus", max_pos_docs=5))
    assert row.question_id == row.extra["original_question_id"] == "q_1"
    assert unroll([]) == []

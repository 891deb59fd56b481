from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pipeline_prep.funnel import Funnel
from pipeline_prep.mining.task import Mined
from pipeline_prep.questions import Question
from pipeline_prep.rows import fill, mining_task, training_rows, unroll

from pipeline.records.sources.ragged import Ragged


def question(*positives, negatives=()):
    metadata = {"query_type": "contextual", "answer": "this one"}
    return Question("q_1", "Which?", ("a.txt",), positives, metadata, "here", negatives)


def rows_of(*questions, most=5, excess="truncate", funnel=None):
    return training_rows(questions, "corpus", most, excess, funnel or Funnel())


def test_positives_beyond_the_limit_stay_known():
    (row,) = rows_of(question("d_1", "d_2", "d_3"), most=2)
    assert row.positives == ["d_1", "d_2"]
    assert row.known_positives == {"d_1", "d_2", "d_3"}
    assert row.to_json()["metadata"] == {"query_type": "contextual", "answer": "this one"}


def test_unrolled_rows_keep_their_lineage():
    rows = rows_of(question("d_1", "d_2", "d_3"), most=2)
    rows[0].negatives, rows[0].negative_scores = ["d_9"], {"d_9": 0.25}
    rows[0].positive_scores = {"d_1": 0.5, "d_2": 0.75}
    first, second = (row.to_json() for row in unroll(rows))
    assert (first["question_id"], second["question_id"]) == ("q_1_0", "q_1_1")
    assert first["original_question_id"] == second["original_question_id"] == "q_1"
    assert first["known_pos_ids"] == second["known_pos_ids"] == ["d_1", "d_2", "d_3"]
    assert first["pos_doc"] == [{"id": "d_1", "score": 0.5}] and second["pos_doc"] == [{"id": "d_2", "score": 0.75}]
    assert first["neg_doc"] == second["neg_doc"] == [{"id": "d_9", "score": 0.25}]


def test_a_row_with_one_positive_keeps_its_id():
    (row,) = unroll(rows_of(question("d_1")))
    assert row.question_id == row.extra["original_question_id"] == "q_1"
    assert unroll([]) == []


def test_too_many_positives_may_drop_the_question_and_are_counted():
    funnel = Funnel()
    kept = rows_of(question("d_1", "d_2"), question("d_3"), most=1, excess="drop", funnel=funnel)
    assert [row.positives for row in kept] == [["d_3"]]
    assert [item["reason"] for item in funnel.rejected] == ["more than max_pos_docs positives"]


def test_rows_become_a_task_of_numbers_and_take_up_what_was_mined():
    names = ["d_1", "d_2", "d_3", "d_4", "d_5"]
    corpus = pa.table({"id": names, "text": names, "title": [""] * 5})
    rows = rows_of(question("d_2", "d_1", negatives=("d_5", "d_unknown")), most=1)
    task = mining_task(rows, corpus, {name: number for number, name in enumerate(names)}, hidden={"d_4", "d_x"})
    assert (task.positives[0].tolist(), task.known[0].tolist(), task.given[0].tolist()) == ([1], [0, 1], [4])
    assert task.hidden.tolist() == [3] and list(task.answers) == [["this one"]]
    mined = Mined(
        2, Ragged.of_rows([[4, 2]]), np.array([0.5, 0.25], np.float32), np.zeros(2, np.uint8),
        np.array([0.75], np.float32), Ragged.of_rows([[3]]), np.array([0.7], np.float32), {},
    )  # fmt: skip
    fill(rows, task, mined)
    assert rows[0].positives == ["d_2", "d_4"] and rows[0].known_positives == {"d_1", "d_2", "d_4"}
    assert rows[0].positive_scores == pytest.approx({"d_2": 0.75, "d_4": 0.7}) and rows[0].negative_scores == {
        "d_5": 0.5,
        "d_3": 0.25,
    }

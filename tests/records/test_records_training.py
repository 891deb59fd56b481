from __future__ import annotations

import json
import math

import pytest

from pipeline.errors import PipelineError
from pipeline.records.training import TrainingFile, TrainingRow

ROW = {"question_id": "q1", "question": "Which?", "corpus_id": "c", "pos_doc": [{"id": "d_1"}], "neg_doc": []}


def write(path, rows, **top):
    path.write_text(json.dumps({"corpus": {"path": "./corpus/"}, "data": rows, **top}), encoding="utf-8")
    return path


def test_a_file_comes_back_with_scores_and_every_other_field(tmp_path):
    row = TrainingRow(
        "q1", "Wie groß?", "c", ["d_1"], ["d_2", "d_3"], {"d_1": 0.5}, {"d_2": 0.25, "d_3": -0.125},
        {"original_question_id": "q", "known_pos_ids": ["d_1", "d_9"], "metadata": {"query_type": "contextual"}},
    )  # fmt: skip
    file = TrainingFile(tmp_path / "corpus", [row], {"mining": {"args": {"hard_neg_margin": 0.95}}})
    assert TrainingFile.load(file.save(tmp_path / "train.json")) == file
    assert row.known_positives == {"d_1", "d_9"}


def test_references_may_be_plain_ids_and_the_corpus_a_list_of_one(tmp_path):
    rows = [ROW | {"pos_doc": [7], "neg_doc": ["d_2", {"id": 3, "score": None}]}]
    file = TrainingFile.load(write(tmp_path / "train.json", rows, corpus=[{"path": "../shared"}]))
    assert file.corpus_path == (tmp_path.parent / "shared").resolve()
    assert (file.rows[0].positives, file.rows[0].negatives, file.rows[0].negative_scores) == (["7"], ["d_2", "3"], {})


@pytest.mark.parametrize(("known", "ids"), [(None, []), ([{"id": "b"}], ["b"]), ([5, "c"], ["5", "c"])])
def test_known_positives_are_read_as_ids(tmp_path, known, ids):
    (row,) = TrainingFile.load(write(tmp_path / "train.json", [ROW | {"known_pos_ids": known}])).rows
    assert row.extra["known_pos_ids"] == ids and row.known_positives == {"d_1", *ids}


def test_a_score_that_is_not_finite_is_never_written(tmp_path):
    row = TrainingRow("q1", "q", "c", ["d_1"], ["d_2"], {}, {"d_2": float("-inf")})
    with pytest.raises(ValueError):
        TrainingFile(tmp_path, [row]).save(tmp_path / "train.json")
    assert not list(tmp_path.iterdir()), "no half-written file stays"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, {"question_id": "q2", "question": "?"}], r"train.json: row 1 \(q2\) lacks corpus_id, pos_doc, neg_doc"),
        ([ROW | {"pos_doc": []}], r"train.json: row 0 \(q1\) has no positive"),
        (["text"], r"train.json: row 0 must be an object, found text"),
        ([ROW | {"question": None}], r"row 0 \(q1\): question must be text, found null"),
        ([ROW | {"question": [1]}], r"row 0 \(q1\): question must be text, found a list"),
        ([ROW | {"question": " "}], r"row 0 \(q1\) has an empty question"),
        ([ROW | {"question": "\ud800?"}], r"row 0 \(q1\): question holds half of a surrogate pair"),
        ([ROW | {"question_id": True}], r"row 0: question_id must be an id"),
        ([ROW | {"pos_doc": [{"id": "d", "score": math.nan}]}], r"row 0 \(q1\): the score of pos_doc must be a finite"),
        ([ROW | {"known_pos_ids": [[1]]}], r"row 0 \(q1\): known_pos_ids must be an id"),
        ([ROW | {"known_pos_ids": "d"}], r"row 0 \(q1\): known_pos_ids must be a list, found text"),
        ([ROW | {"metadata": {"score": math.inf}}], r"row 0 \(q1\) holds a value that no file of strict JSON can"),
        ([ROW | {"metadata": {"name": "\ud800"}}], r"row 0 \(q1\) holds a value that no file of strict JSON can"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, message):
    with pytest.raises(PipelineError, match=message):
        TrainingFile.load(write(tmp_path / "train.json", rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "needs the keys `corpus` and `data`"),
        ('{"corpus": "x", "data": []}', "`corpus` must be one"),
        ('{"corpus": {"path": "x"}, "data": null}', "needs the keys `corpus` and `data`, a list of rows"),
        ('{"corpus": {"path": "x"},\n "data": [}', r"train.json:2: not valid JSON"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(PipelineError, match=message):
        TrainingFile.load(tmp_path / "train.json")
    with pytest.raises(PipelineError, match=r"cannot read .*nothing.json"):
        TrainingFile.load(tmp_path / "nothing.json")

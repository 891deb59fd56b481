"""Rows are checked before training, texts tokenised once, and the step's table of candidates is right."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pipeline_finetune.data import MISSING, TokenTable, build_data, load_rows, load_val_rows
from pipeline_finetune.groups import make_group

from pipeline.errors import PipelineError


def words(texts):
    return [[hash(word) % 1000 for word in text.split()] for text in texts]


def built(path, n_passages=4):
    return build_data(
        load_rows(path, need_negatives=False), None, n_passages=n_passages, format_query=lambda text: f"query: {text}",
        format_passage=lambda text, title: f"passage: {title} {text}", tokenize_queries=words, tokenize_passages=words,
    )  # fmt: skip


def edit(path, change):
    document = json.loads(path.read_text())
    change(document["data"])
    path.write_text(json.dumps(document))
    return path


def test_a_token_table_gives_back_every_text():
    table = TokenTable(["a b c", "", "d"], lambda texts: [[len(word) for word in text.split()] for text in texts])
    assert table.tokens.dtype == np.int32 and list(table.lengths) == [3, 0, 1]
    assert [list(table[index]) for index in range(len(table))] == [[1, 1, 1], [], [1]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[2]["neg_doc"].append({"id": "gone"}), ["row 2", "q2_0", "neg_doc", "'gone'"]),
        (lambda rows: rows[3].update(pos_doc=[{"id": "gone"}]), ["row 3", "q3_0", "pos_doc", "'gone'"]),
        (lambda rows: rows[1].update(question="  "), ["row 1", "q1_0", "empty question"]),
        (lambda rows: rows[1].update(neg_doc=[]), ["q1_0", "no hard negative"]),
        (lambda rows: rows[1].update(neg_doc=[rows[1]["pos_doc"][0]]), ["q1_0", "no hard negative"]),
        (lambda rows: rows.clear(), ["no rows"]),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named(training_set, change, told):
    with pytest.raises(PipelineError) as caught:
        load_rows(edit(training_set, change), need_negatives=True)
    for part in (str(training_set), *told):
        assert part in caught.value.message


def test_no_negatives_are_fine_with_in_batch_negatives(training_set):
    edit(training_set, lambda rows: rows[1].update(neg_doc=[]))
    assert len(load_rows(training_set, need_negatives=False).rows) == 24


def test_validation_is_optional(tmp_path, training_set):
    empty = tmp_path / "empty.json"
    empty.touch()
    edit(training_set.with_name("val.json"), lambda rows: rows.clear())
    assert [
        load_val_rows(path) for path in (None, tmp_path / "no.json", empty, training_set.with_name("val.json"))
    ] == ([None] * 4)


def test_negatives_are_the_first_in_file_order_and_never_known_positives(training_set):
    def change(rows):
        rows[0]["neg_doc"] = [{"id": item} for item in ("p7", "p0", "p7", "p9", "p5", "p6")]
        rows[1].update(question=rows[2]["question"], neg_doc=[{"id": "p2"}, {"id": "p8"}])

    data = built(edit(training_set, change))
    text_of = {item.id: item.text for item in load_rows(training_set, need_negatives=False).corpus.values()}
    expected = [list(words([f"passage:  {text_of[item]}"])[0]) for item in ("p7", "p9", "p5")]
    assert [list(data.passages[index]) for index in data.train.negatives[0]] == expected
    # row 1 asks what row 2 asks, so row 2's positive p2 is known to answer it and is no negative
    assert (data.train.negatives[1] != MISSING).sum() == 1
    assert data.train.positive[2] in data.train.known[1]


def test_only_named_passages_are_kept_and_each_once(training_set):
    data = built(training_set)
    named = {*data.train.positive, *data.train.negatives.ravel()}
    assert named == set(range(len(data.passages)))
    assert list(data.train.queries[0]) == words(["query: the pump leaks, what now?"])[0]


def test_a_group_holds_each_passage_once_and_masks_known_positives(training_set):
    def change(rows):
        rows[1].update(question=rows[0]["question"], extra=1)  # siblings: p0 and p1 answer the same question
        rows[1]["known_pos_ids"] = rows[0]["known_pos_ids"] = ["p0", "p1"]
        rows[0]["neg_doc"], rows[1]["neg_doc"] = [{"id": "p8"}], [{"id": "p8"}, {"id": "p9"}]
        rows[2]["neg_doc"] = [{"id": "p0"}, {"id": "p1"}]

    table = built(edit(training_set, change)).train
    group = make_group(table, np.arange(3), in_batch_negatives=True)
    assert len(group.passages) == len(np.unique(group.passages)) == 5  # p0 p1 p2 p8 p9
    column = {int(passage): number for number, passage in enumerate(group.passages)}
    p0, p1, p2 = (column[int(table.positive[row])] for row in range(3))
    assert group.positive.tolist() == [p0, p1, p2]
    assert group.candidates[0, p0] and not group.candidates[0, p1]
    assert group.candidates[1, p1] and not group.candidates[1, p0]
    assert group.candidates[2].all()

    own = make_group(table, np.arange(3), in_batch_negatives=False)
    assert own.candidates.sum(axis=1).tolist() == [2, 3, 3]
    assert own.candidates[2, [p0, p1, p2]].all()

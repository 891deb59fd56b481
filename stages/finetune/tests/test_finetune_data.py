"""Texts are tokenised once into memory-mapped tables, and the step's table of candidates is right."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pipeline_finetune.data import MISSING, Encode, open_data, prepare_data
from pipeline_finetune.groups import make_group
from pipeline_finetune.tables import sample_passages
from pipeline_finetune.tokens import TokenTable, write_tokens

from pipeline.contract import EncodingContract
from pipeline.records.sources.read import read_sources

CONTRACT = EncodingContract(query_prefix="query: ", passage_prefix="passage: ")


def words(texts):
    """One number for each word, the same in every process."""
    return [[sum(word.encode()) for word in text.split()] for text in texts]


def pairs(queries, passages):
    return words([f"{query} {passage}" for query, passage in zip(queries, passages, strict=True)]), [
        len(query.split()) for query in queries
    ]


BI = Encode(CONTRACT, words, words)
CROSS = Encode(CONTRACT, tokenize_pairs=pairs)


def prepared(path, folder, encode=BI, val=None, **how):
    train = read_sources(str(path), seed=0)
    val = read_sources(str(val), seed=0, kind="val") if val else None
    return prepare_data(folder, train, val, **{"n_passages": 4, "eval_negatives": 2, "encode": encode, **how})


def edit(path, change):
    document = json.loads(path.read_text())
    change(document["data"])
    path.write_text(json.dumps(document))
    return path


def passage_words(path, name):
    table = read_sources(str(path), seed=0).corpora[0]
    text = table["text"][table["id"].to_pylist().index(name)].as_py()
    return words([f"passage: {text}"])[0]


def test_a_token_table_gives_back_every_text(tmp_path):
    table = TokenTable.of(["a b c", "", "d"], lambda texts: [[len(word) for word in text.split()] for text in texts])
    assert table.tokens.dtype == np.int32 and list(table.lengths) == [3, 0, 1]
    assert [list(table[index]) for index in range(len(table))] == [[1, 1, 1], [], [1]]


def test_a_written_table_is_memory_mapped_and_the_same_however_it_was_cut(tmp_path):
    items = [[1, 2, 3], [], [4], [5, 6]]
    one = write_tokens(tmp_path, "one", [items])
    many = write_tokens(tmp_path, "many", ([item] for item in items))
    assert isinstance(one.tokens, np.memmap) and one.tokens.dtype == np.int32
    for table in (one, many, TokenTable.open(tmp_path, "many")):
        assert [list(table[index]) for index in range(len(table))] == items
    for nothing in (write_tokens(tmp_path, "none", []), write_tokens(tmp_path, "empty", [[[], []]])):
        assert not nothing.lengths.sum()


def test_only_named_passages_are_kept_and_each_once(tmp_path, training_set):
    data = prepared(training_set, tmp_path / "tokens")
    named = {*data.train.positive.tolist(), *data.train.negatives.ravel().tolist()}
    assert named == set(range(len(data.passages)))
    assert list(data.train.queries[0]) == words(["query: the pump leaks, what now?"])[0]
    assert list(data.passages[data.train.positive[3]]) == passage_words(training_set, "p3")
    assert list(data.train.question_ids)[:2] == data.train.question_ids[:2] == ["q0_0", "q1_0"]
    assert data.train.teacher is None and data.val is None and data.val_corpus is None


def test_negatives_are_the_first_in_file_order_and_never_known_positives(tmp_path, training_set):
    def change(rows):
        rows[0]["neg_doc"] = [{"id": item} for item in ("p7", "p0", "p7", "p9", "p5", "p6")]
        rows[1].update(question=rows[2]["question"], neg_doc=[{"id": "p2"}, {"id": "p8"}])

    data = prepared(edit(training_set, change), tmp_path / "tokens")
    expected = [passage_words(training_set, name) for name in ("p7", "p9", "p5")]
    assert [list(data.passages[index]) for index in data.train.negatives[0]] == expected
    # row 1 asks what row 2 asks, so row 2's positive p2 is known to answer it and is no negative
    assert (data.train.negatives[1] != MISSING).sum() == 1
    assert data.train.positive[2] in data.train.known[1]


def test_scores_of_a_teacher_stand_beside_their_passages(tmp_path, training_set):
    def change(rows):
        rows[0].update(pos_doc=[{"id": "p0", "score": 9}], neg_doc=[{"id": "p0", "score": 8}, {"id": "p1", "score": 7}])

    teacher = prepared(edit(training_set, change), tmp_path / "tokens").train.teacher
    assert teacher.dtype == np.float32 and teacher.shape == (24, 4)
    np.testing.assert_array_equal(teacher[0], [9, 7, np.nan, np.nan])
    assert np.isnan(teacher[1:]).all()


def test_validation_rows_share_the_passage_table(tmp_path, training_set):
    val = training_set.with_name("val.json")
    data = prepared(training_set, tmp_path / "tokens", val=val)
    assert data.val.negatives.shape == (6, 2) and data.train.negatives.shape == (24, 3)
    assert list(data.passages[data.val.positive[0]]) == passage_words(training_set, "p24")
    # p24 is also a negative of the last training row: one passage, one number
    assert data.val.positive[0] in data.train.negatives[23]


def test_pairs_of_a_cross_encoder_stand_row_after_row(tmp_path, training_set):
    edit(training_set, lambda rows: rows[0].update(neg_doc=["p5"]))
    data = prepared(training_set, tmp_path / "tokens", CROSS, training_set.with_name("val.json"), val_corpus_size=50)
    table = data.train_pairs
    assert data.passages is None and data.val_corpus is None and table.n_passages == 4
    assert len(table.tokens) == len(table.starts) == 24 * 4 and table.starts.dtype == np.int32
    question = words(["query: the pump leaks, what now?"])[0]
    for column, name in enumerate(("p0", "p5")):
        assert list(table.tokens[column]) == question + passage_words(training_set, name)
        assert table.starts[column] == len(question)
    assert not table.tokens.lengths[2:4].any() and table.tokens.lengths[4:].all()
    assert data.val_pairs.n_passages == 3 and len(data.val_pairs.tokens) == 18


def test_the_same_data_is_reused_and_other_data_takes_its_place(tmp_path, training_set):
    calls = []

    def counted(texts):
        calls.append(len(texts))
        return words(texts)

    def folder(**how):
        return prepared(
            training_set, tmp_path / "tokens", Encode(how.pop("contract", CONTRACT), words, counted), **how
        ).folder

    first = folder()
    assert folder() == first and len(calls) == 1
    others = {folder(n_passages=3), folder(contract=CONTRACT.with_(passage_max_length=9))}
    edit(training_set, lambda rows: rows[0].update(question="another?"))
    assert len({first, folder(), *others}) == 4 and len(calls) == 4
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_a_build_that_breaks_off_leaves_nothing_to_reuse(tmp_path, training_set):
    def breaks(texts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(training_set, tmp_path / "tokens", Encode(CONTRACT, words, breaks))
    assert not list((tmp_path / "tokens").iterdir())


def test_another_process_opens_the_same(tmp_path, training_set):
    built = prepared(training_set, tmp_path / "tokens", val=training_set.with_name("val.json"), val_corpus_size=40)
    opened = open_data(built.folder)
    assert isinstance(opened.passages.tokens, np.memmap) and isinstance(opened.train.positive, np.memmap)
    np.testing.assert_array_equal(opened.train.known.values, built.train.known.values)
    np.testing.assert_array_equal(opened.val_relevant.values, built.val_relevant.values)


def test_validation_searches_what_its_rows_name_and_others_up_to_the_size(tmp_path, training_set):
    val = read_sources(str(training_set.with_name("val.json")), seed=0, kind="val")
    for size, expected in ((0, len(val.passages)), (40, 40), (10_000, 96)):
        table, relevant = sample_passages(val, size, seed=1)
        assert len(table) == expected and set(val.passages["id"].to_pylist()) <= set(table["id"].to_pylist())
        found = [table["id"][int(relevant[row][0])].as_py() for row in range(len(val))]
        assert found == [f"p{24 + row}" for row in range(6)]
    assert sample_passages(val, 40, seed=1)[0].equals(sample_passages(val, 40, seed=1)[0])
    assert not sample_passages(val, 40, seed=1)[0].equals(sample_passages(val, 40, seed=2)[0])


def test_prefixes_of_the_data_replace_those_of_the_contract(tmp_path, training_set):
    metadata = training_set.parent / "corpus" / "merlin_metadata.json"
    metadata.write_text(
        json.dumps(json.loads(metadata.read_text()) | {"query_instruction": "find", "class": "TextQADataset"})
    )
    rows = read_sources(str(training_set), seed=0, use_dataset_instruction=True)
    data = prepare_data(tmp_path / "tokens", rows, None, n_passages=2, eval_negatives=1, encode=BI)
    assert list(data.train.queries[0]) == words(["find the pump leaks, what now?"])[0]
    assert [*words(["passage:"])[0], *data.passages[data.train.positive[0]]] == passage_words(training_set, "p0")


def test_a_group_holds_each_passage_once_and_masks_known_positives(tmp_path, training_set):
    def change(rows):
        rows[1].update(question=rows[0]["question"], extra=1)  # siblings: p0 and p1 answer the same question
        rows[1]["known_pos_ids"] = rows[0]["known_pos_ids"] = ["p0", "p1"]
        rows[0]["neg_doc"], rows[1]["neg_doc"] = [{"id": "p8"}], [{"id": "p8"}, {"id": "p9"}]
        rows[2]["neg_doc"] = [{"id": "p0"}, {"id": "p1"}]

    table = prepared(edit(training_set, change), tmp_path / "tokens").train
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

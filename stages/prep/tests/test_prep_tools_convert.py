"""`data convert`: there and back gives the same rows; what a format cannot hold is said with its count."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pipeline_prep.tools import main, targets
from pipeline_prep.tools.targets import CELL, TARGETS

from pipeline.records.passages import Passage, read_corpus, write_corpus
from pipeline.records.sources.read import read_sources

FILES = {
    "inline": ("out.jsonl",), "columns": ("out.jsonl", "out.csv", "out.tsv", "out.parquet"),
    "corpus-ids": ("out.json",), "beir": ("out",), "cohere": ("out.jsonl",),
}  # fmt: skip
EVERY = [(to, name) for to, names in FILES.items() for name in names]


def run(source, output, to=None, corpus_id=None, split="train", overwrite=False):
    options = {"input": str(source), "output": str(output), "to": to, "corpus_id": corpus_id, "split": split}
    return main.main(["convert", json.dumps(options | {"overwrite": overwrite})])


def write_ids(folder, rows, passages):
    write_corpus(folder / "corpus", passages, "c")
    path = folder / "train.json"
    path.write_text(json.dumps({"corpus": {"path": "./corpus"}, "data": rows}))
    return path


def content(path, to, titles=True, scores=True, ids=True):
    """Rows as lists, without what the format cannot hold; a positive's place in its row does not count."""
    place = path / "qrels" / "train.tsv" if to == "beir" else path
    rows = read_sources(str(place), seed=0, kind="val")
    texts, names = rows.passages["text"].to_pylist(), rows.passages["title"].to_pylist()

    def passages(items, given, row):
        span = range(items.offsets[row], items.offsets[row + 1])
        return [
            (
                texts[items.values[n]],
                names[items.values[n]] if titles else "",
                repr(given[n]) if scores and not math.isnan(given[n]) else "",
            )
            for n in span
        ]

    return [
        (
            rows.question_ids[row].as_py() if ids else "",
            rows.questions[row].as_py(),
            passages(rows.positives, rows.positive_scores, row),
            passages(rows.negatives, rows.negative_scores, row),
        )
        for row in range(len(rows))
    ]


SIGNS = st.sampled_from(["a", "é", '"', ",", "\t", "\n", "\r", "\u2028", "{", "'", "中", " ", "\\"])
texts = st.text(SIGNS, max_size=8).map(lambda text: f"{text}x")
scores = st.none() | st.floats(-100, 100, width=32)


@st.composite
def files(draw):
    """(rows, passages) of a training file; rows name no passage twice and no positive as a negative."""
    passages = [
        Passage(f"p{number}", f"{draw(texts)} {number}", draw(st.sampled_from(["", "T", "on, it"])))
        for number in range(draw(st.integers(2, 5)))
    ]
    rows = []
    for number in range(draw(st.integers(1, 4))):
        names = draw(st.permutations([item.id for item in passages]))
        cut = draw(st.integers(1, len(names)))
        end = draw(st.integers(cut, len(names)))
        scored = [{"id": name, "score": draw(scores)} for name in names]
        question = f"{draw(texts)} q{number}"
        rows.append({"question_id": f"q{number}", "question": question, "corpus_id": "c", "pos_doc": scored[:cut]})
        rows[-1]["neg_doc"] = scored[cut:end]
    return rows, passages


@pytest.mark.parametrize(("to", "name"), EVERY)
@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
@given(drawn=files())
def test_there_and_back_gives_the_same_rows(tmp_path_factory, to, name, drawn):
    folder = tmp_path_factory.mktemp("convert")
    holds = TARGETS[to].holds
    kept = {"titles": "titles" in holds, "scores": "scores" in holds, "ids": "question_ids" in holds}
    source = write_ids(folder, *drawn)
    assert run(source, folder / name, to) == 0
    expected = content(source, "corpus-ids", **kept)
    if "several" not in holds:
        expected = [
            (f"{question_id}_{number}" if len(positives) > 1 else question_id, question, [one], negatives)
            for question_id, question, positives, negatives in expected
            for number, one in enumerate(positives)
        ]
    made = content(folder / name, to, **kept)
    assert made == expected
    assert run(folder / name, folder / "back.json", "corpus-ids") == 0
    assert content(folder / "back.json", "corpus-ids", **kept) == made


@pytest.fixture
def source(tmp_path):
    rows = [
        {"question_id": "a", "question": "hot?", "corpus_id": "c", "pos_doc": [{"id": "p1", "score": 0.75}, "p2"],
         "neg_doc": [{"id": "p3", "score": 0.5}], "known_pos_ids": ["p4"], "metadata": {"type": "x"}},
        {"question_id": "b", "question": "cold?", "corpus_id": "c", "pos_doc": ["p3"], "neg_doc": []},
    ]  # fmt: skip
    passages = [Passage(f"p{n}", f"passage {n}", "title" if n == 1 else "") for n in range(1, 6)]
    return write_ids(tmp_path, rows, passages)


NAMED = {
    "question_ids": "2 question ids", "passage_ids": "4 ids of passages", "titles": "1 titles", "scores": "2 scores",
    "several": "1 rows with several positives", "known": "1 known positives", "corpus": "1 passages that no row names",
}  # fmt: skip


@pytest.mark.parametrize("to", TARGETS)
def test_what_a_format_cannot_hold_is_said_with_its_count(source, caplog, to):
    caplog.set_level("INFO", "pipeline")
    assert run(source, source.parent / FILES[to][0], to) == 0
    for what, words in NAMED.items():
        assert (f"left out: {words}" in caplog.text) == (what not in TARGETS[to].holds), what
    assert "left out: 1 times the field metadata" in caplog.text


def test_corpus_and_ids_survive_where_there_is_room(source):
    folder = source.parent
    assert run(source, folder / "beir", split="dev") == 0
    assert run(folder / "beir", folder / "again.json", corpus_id="mine", split="dev") == 0
    made = json.loads((folder / "again.json").read_text())
    assert made["corpus"] == {"path": "./again_corpus"}
    assert made["data"][0] == {
        "question_id": "a", "question": "hot?", "corpus_id": "mine",
        "pos_doc": [{"id": "p1"}, {"id": "p2"}], "neg_doc": [{"id": "p3"}],
    }  # fmt: skip
    corpus = read_corpus(folder / "again_corpus")
    assert corpus == read_corpus(folder / "corpus") and list(corpus) == [f"p{n}" for n in range(1, 6)]
    assert run(source, folder / "copy.json") == 0
    assert json.loads((folder / "copy.json").read_text())["data"][0]["known_pos_ids"] == ["p1", "p2", "p4"]


def test_one_id_for_two_texts_becomes_two_ids(tmp_path, caplog):
    caplog.set_level("INFO", "pipeline")
    docs = [{"text": "same", "title": "A"}, {"text": "same", "title": "B"}]
    line = {"query": "which?", "pos_doc": docs[:1], "neg_doc": docs[1:]}
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n")
    assert run(tmp_path / "in.jsonl", tmp_path / "out.json") == 0
    assert "1 ids that stand for another text too" in caplog.text
    assert [item.title for item in read_corpus(tmp_path / "out_corpus").values()] == ["A", "B"]
    assert len({item.id for item in read_corpus(tmp_path / "out_corpus").values()}) == 2


def test_one_text_under_two_ids_stays_two_passages_of_the_corpus(tmp_path):
    row = {"question_id": "a", "question": "q?", "corpus_id": "c", "pos_doc": ["p2"], "neg_doc": []}
    source = write_ids(tmp_path, [row], [Passage("p1", "same"), Passage("p2", "same")])
    assert run(source, tmp_path / "out.json") == 0
    assert list(read_corpus(tmp_path / "out_corpus")) == ["p1", "p2"]
    assert json.loads((tmp_path / "out.json").read_text())["data"][0]["pos_doc"] == [{"id": "p2"}]


@pytest.mark.parametrize(
    ("output", "to", "named"),
    [
        ("out.jsonl", None, "--to inline|columns|corpus-ids|beir|cohere"),
        ("out.csv", "inline", "ends with .jsonl"),
        ("train.json", None, "one and the same"),
        ("corpus/new.json", None, "one holds the other"),
        (".", "beir", "one holds the other"),
        ("there.jsonl", "inline", "is there already"),
    ],
)
def test_an_output_that_cannot_be_is_one_error_before_anything_is_written(source, capsys, output, to, named):
    folder = source.parent
    (folder / "there.jsonl").write_text("mine")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(source, folder / output, to) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and named in shown
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_overwriting_deletes_nothing_that_is_not_ours(source, capsys):
    beir = source.parent / "beir"
    assert run(source, beir) == 0 and run(source, beir) == 1
    assert run(source, beir, overwrite=True) == 0
    (beir / "qrels" / "test.tsv").write_text("mine")
    assert run(source, beir, overwrite=True) == 1
    assert "qrels/test.tsv" in capsys.readouterr().err and (beir / "qrels" / "test.tsv").read_text() == "mine"
    (source.parent / "x_corpus").mkdir()
    (source.parent / "x_corpus" / "notes.txt").write_text("mine")
    assert run(source, source.parent / "x.json", overwrite=True) == 1
    assert (source.parent / "x_corpus" / "notes.txt").is_file()


def test_ids_and_texts_that_a_table_cannot_hold_are_one_error(tmp_path, capsys):
    row = {"question_id": "a\tb", "question": "q?", "corpus_id": "c", "pos_doc": ["p1"], "neg_doc": []}
    source = write_ids(tmp_path, [row], [Passage("p1", "x" * CELL)])
    assert run(source, tmp_path / "beir") == 1 and run(source, tmp_path / "out.csv") == 1
    shown = capsys.readouterr().err
    assert "cannot stand in a .tsv file" in shown and "131,072" in shown
    assert not (tmp_path / "beir").exists() and not (tmp_path / "out.csv").exists()
    source = write_ids(tmp_path, [row], [Passage("p1", "", "a title")])
    assert run(source, tmp_path / "out.jsonl", "inline") == 1 and run(source, tmp_path / "out.json") == 0
    assert "no text" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "hello", '{"query": 1}', '{"query": "a", "pos_doc": NaN'])
def test_an_input_that_cannot_be_read_is_one_error(tmp_path, capsys, text):
    (tmp_path / "in.jsonl").write_text(text)
    assert run(tmp_path / "in.jsonl", tmp_path / "out.json") == 1 and run(tmp_path / "no", tmp_path / "out.json") == 1
    assert capsys.readouterr().err.count("error: ") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_row_for_each_positive_never_takes_the_id_of_another_row(tmp_path, capsys):
    rows = [
        {"question_id": name, "question": f"{name}?", "corpus_id": "c", "pos_doc": positives, "neg_doc": []}
        for name, positives in (("a", ["p1", "p2"]), ("a_1", ["p1"]))
    ]
    source = write_ids(tmp_path, rows, [Passage("p1", "x"), Passage("p2", "y")])
    assert run(source, tmp_path / "out.csv") == 1 and not (tmp_path / "out.csv").exists()
    assert "two rows would have the id 'a_1'" in capsys.readouterr().err


def test_scores_are_the_same_numbers_in_fp32(tmp_path):
    row = {"question_id": "a", "question": "q?", "corpus_id": "c", "pos_doc": [{"id": "p1", "score": 1 / 3}]}
    source = write_ids(tmp_path, [row | {"neg_doc": []}], [Passage("p1", "x")])
    assert run(source, tmp_path / "out.json") == 0
    (given,) = json.loads((tmp_path / "out.json").read_text())["data"][0]["pos_doc"]
    assert np.float32(given["score"]) == np.float32(1 / 3) and len(str(given["score"])) < 12


def state(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def records(tmp_path, record):
    """A folder of records: a question of two chunks asked in two documents, a bad one, and a chunk without question."""
    folder = tmp_path / "records"
    folder.mkdir()
    for name, pairs in (("a.txt", [("Which?", [1, 2])]), ("b.txt", [("which", [1]), ("Low?", [2])])):
        made = record(name, [f"{name} one", f"{name} two", f"{name} three"], pairs)
        if len(pairs) == 2:
            made["qa_evaluations"] = {"evaluations": [{"overall": {"score": score}} for score in (8, 2)]}
        (folder / f"{name}.json").write_text(json.dumps([made]))
    return folder


@pytest.mark.parametrize("form", ["folder", "file", "handoff"])
def test_records_of_sdg_become_questions_with_their_passages(records, caplog, form):
    caplog.set_level("INFO", "pipeline")
    told = {"schema_version": 1, "output_path": "b.txt.json"}
    if form == "handoff":
        (records / "generation_result.json").write_text(json.dumps(told))
    place = {"folder": records, "file": records / "b.txt.json", "handoff": records / "generation_result.json"}[form]
    assert run(place, records.parent / "out.json") == 0
    rows = read_sources(str(records.parent / "out.json"), seed=0)
    texts = rows.passages["text"].to_pylist()
    found = {"a.txt one", "a.txt two", "b.txt one"} if form == "folder" else {"b.txt one"}
    assert {texts[number] for number in rows.positives[0]} == found and len(rows) == 1
    assert len(read_corpus(records.parent / "out_corpus")) == (6 if form == "folder" else 3)
    assert "below quality_threshold" in caplog.text and "left out: 1 times the field file_name" in caplog.text
    assert ("identical question, merged" in caplog.text) == (form == "folder")


def test_a_folder_of_labelled_files_keeps_ids_and_scores(source, capsys):
    folder = source.parent / "pairs"
    folder.mkdir()
    for name, score in (("a", 0.5), ("b", None)):
        line = {"id": name, "query": f"{name}?", "pos_doc": [{"text": name, "score": score}], "neg_doc": []}
        (folder / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    assert run(folder, source.parent / "out.json") == 0
    rows = json.loads((source.parent / "out.json").read_text())["data"]
    assert [(row["question_id"], row["pos_doc"][0].get("score")) for row in rows] == [("a", 0.5), ("b", None)]
    (folder / "b.jsonl").write_text((folder / "a.jsonl").read_text())
    assert run(folder, source.parent / "twice.json") == 1
    assert "question id 'a' stands in two files" in capsys.readouterr().err
    assert not (source.parent / "twice_corpus").exists()


def test_the_grades_of_judgements_are_said_to_be_lost(source, caplog):
    caplog.set_level("INFO", "pipeline")
    beir = source.parent / "beir"
    assert run(source, beir) == 0
    (beir / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\na\tp1\t2\na\tp2\t1\na\tp3\t-1\n")
    assert run(beir, source.parent / "again") == 0
    assert "left out: 2 grades of judgements other than 0 and 1" in caplog.text


def full(*_):
    raise OSError(28, "no space left")


def test_a_kill_before_the_last_step_leaves_rows_with_their_corpus(source, monkeypatch):
    output, folder = source.parent / "x.json", source.parent
    assert run(source, output) == 0
    before = state(folder)
    assert run(source, output, overwrite=True) == 0 and state(folder) == before, "the same corpus stays where it is"
    passages = [Passage(f"p{n}", f"new {n}") for n in range(9)]
    changed = write_ids(folder / "new", json.loads(source.read_text())["data"], passages)
    with monkeypatch.context() as patched:
        patched.setattr(targets.Document, "save", full)
        assert run(changed, output, overwrite=True) == 1
    assert before.items() <= state(folder).items()
    for source_of, text in ((changed, "new 1"), (source, "passage 1"), (changed, "new 1")):
        assert run(source_of, output, overwrite=True) == 0
        rows = json.loads(output.read_text())
        assert read_corpus(folder / rows["corpus"]["path"])["p1"].text == text
        assert len(list(folder.glob("x_corpus*"))) == 1

"""Every accepted format gives the same rows; whatever is wrong is named with its file, row and id."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, passage_id, write_corpus
from pipeline.records.sources import hub
from pipeline.records.sources.ragged import Ragged
from pipeline.records.sources.read import Needs, read_sources
from pipeline.records.sources.spec import Source, parse_sources

TEXTS = {f"p{number}": f"passage number {number}" for number in range(8)}


def write_ids(folder, rows=None, corpus_id="c", texts=TEXTS):
    write_corpus(folder / "corpus", [Passage(name, text) for name, text in texts.items()], corpus_id)
    rows = rows if rows is not None else [
        {"question_id": f"q{number}", "question": f"what is {number}?", "corpus_id": corpus_id,
         "pos_doc": [{"id": f"p{number}"}], "neg_doc": [{"id": f"p{number + 1}"}, f"p{number + 2}"]}
        for number in range(4)
    ]  # fmt: skip
    path = folder / "train.json"
    path.write_text(json.dumps({"corpus": {"path": "./corpus"}, "data": rows}))
    return path


def write_beir(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "qrels").mkdir(exist_ok=True)
    corpus = [{"_id": name, "text": text, "title": ""} for name, text in TEXTS.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    queries = [{"_id": f"q{number}", "text": f"what is {number}?"} for number in range(4)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    lines = ["query-id\tcorpus-id\tscore"]
    lines += [f"q{n}\tp{n}\t1\nq{n}\tp{n + 1}\t0\nq{n}\tp{n + 2}\t0" for n in range(4)]
    for split in ("train", "dev"):
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def inline(number, **more):
    row = {"question_id": f"q{number}", "query": f"what is {number}?", "pos_doc": TEXTS[f"p{number}"]}
    return {**row, "neg_doc": [TEXTS[f"p{number + 1}"], {"text": TEXTS[f"p{number + 2}"]}], **more}


def columns(number, **more):
    row = {"question_id": f"q{number}", "anchor": f"what is {number}?", "positive": TEXTS[f"p{number}"]}
    return {**row, "negative_2": TEXTS[f"p{number + 2}"], "negative_1": TEXTS[f"p{number + 1}"], **more}


def cohere(number):
    wrong = [TEXTS[f"p{number + 1}"], TEXTS[f"p{number + 2}"]]
    row = {"question_id": f"q{number}", "query": f"what is {number}?"}
    return {**row, "relevant_passages": [TEXTS[f"p{number}"]], "hard_negatives": wrong}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_table(path, rows, delimiter):
    cells = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
    path.write_text("".join(delimiter.join(f'"{cell}"' for cell in line) + "\n" for line in cells))
    return path


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


FORMATS = {
    "corpus ids": write_ids,
    "beir": lambda folder: write_beir(folder),
    "jsonl": lambda folder: write_lines(folder / "a.jsonl", map(inline, range(4))),
    "jsonl under another ending": lambda folder: write_lines(folder / "a.txt", map(inline, range(4))),
    "json list": lambda folder: _write(folder / "a.json", json.dumps([inline(n) for n in range(4)], indent=1)),
    "json data": lambda folder: _write(folder / "a.json", json.dumps({"data": [inline(n) for n in range(4)]})),
    "cohere rerank jsonl": lambda folder: write_lines(folder / "a.jsonl", map(cohere, range(4))),
    "column jsonl": lambda folder: write_lines(folder / "a.jsonl", map(columns, range(4))),
    "csv": lambda folder: write_table(folder / "a.csv", [columns(n) for n in range(4)], ","),
    "tsv": lambda folder: write_table(folder / "a.tsv", [columns(n) for n in range(4)], "\t"),
    "parquet": lambda folder: write_parquet(folder / "a.parquet", [columns(n) for n in range(4)]),
}


def _write(path, text):
    path.write_text(text)
    return path


def texts_of(rows, field, row):
    return [rows.passages["text"][int(number)].as_py() for number in getattr(rows, field)[row]]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    rows = read_sources(str(FORMATS[name](tmp_path)), seed=0)
    assert rows.question_ids.to_pylist() == ["q0", "q1", "q2", "q3"]
    assert rows.questions.to_pylist() == [f"what is {n}?" for n in range(4)]
    for row in range(4):
        assert texts_of(rows, "positives", row) == texts_of(rows, "known", row) == [f"passage number {row}"]
        assert texts_of(rows, "negatives", row) == [f"passage number {row + 1}", f"passage number {row + 2}"]
    assert len(rows.passages) == 6


def test_inline_texts_have_stable_ids_and_one_text_is_one_passage(tmp_path):
    rows = read_sources(str(FORMATS["jsonl"](tmp_path)), seed=0)
    assert set(rows.passages["id"].to_pylist()) == {passage_id(TEXTS[f"p{n}"]) for n in range(6)}
    assert rows.negatives[0][0] == rows.positives[1][0]


def test_cohere_rows_may_lack_negatives_but_not_positives(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"query": "q", "relevant_passages": ["a", "b"]}])
    rows = read_sources(str(path), seed=0)
    assert texts_of(rows, "positives", 0) == ["a", "b"] and not len(rows.negatives.values)
    write_lines(path, [{"query": "q", "relevant_passages": [], "hard_negatives": ["a"]}])
    with pytest.raises(PipelineError, match=r"a\.jsonl.* has no positive in relevant_passages"):
        read_sources(str(path), seed=0)


def test_an_answer_beside_its_passage_is_no_second_positive(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q", "answer": "42", "context": "p"}])
    assert texts_of(read_sources(str(path), seed=0), "positives", 0) == ["p"]
    write_lines(path, [{"question": "q", "passage": "42", "context": "p"}])
    with pytest.raises(PipelineError, match="has passage and context, which mean the same"):
        read_sources(str(path), seed=0)


def test_sources_share_equal_passages_and_keep_different_ones_of_one_id_apart(tmp_path):
    first = write_ids(tmp_path / "a", corpus_id="a")
    second = write_ids(tmp_path / "b", corpus_id="b", texts=TEXTS | {"p0": "another text"})
    rows = read_sources([str(first), str(second)], seed=0)
    assert len(rows) == 8 and len(rows.passages) == 7
    assert texts_of(rows, "positives", 4) == ["another text"]
    assert rows.positives[1][0] == rows.positives[5][0]
    # both sources ask question 0: each knows the other's positive
    assert texts_of(rows, "known", 0) == texts_of(rows, "known", 4) == ["passage number 0", "another text"]


def test_known_positives_are_never_negatives(tmp_path):
    rows = [inline(0, neg_doc=[TEXTS["p5"], TEXTS["p0"], TEXTS["p5"], TEXTS["p3"]]), inline(1, query="what is 0?")]
    rows[1]["pos_doc"] = [TEXTS["p3"], TEXTS["p4"]]
    read = read_sources(str(write_lines(tmp_path / "a.jsonl", rows)), seed=0)
    assert texts_of(read, "negatives", 0) == ["passage number 5"]
    assert sorted(texts_of(read, "known", 0)) == [TEXTS["p0"], TEXTS["p3"], TEXTS["p4"]]


def test_num_samples_and_max_samples_draw_by_the_seed_and_keep_the_order(tmp_path):
    first, second = write_ids(tmp_path / "a", corpus_id="a"), FORMATS["jsonl"](tmp_path)
    spec = [{"path": str(first), "num_samples": 2}, {"path": str(second), "num_samples": 9}]
    rows = read_sources(spec, seed=3)
    ids = rows.question_ids.to_pylist()
    assert len(ids) == 6 and ids[:2] == sorted(ids[:2]) and ids[2:] == ["q0", "q1", "q2", "q3"]
    assert read_sources(spec, seed=3).digest() == rows.digest()
    drawn = {tuple(read_sources(spec, seed=seed, max_samples=3).question_ids.to_pylist()) for seed in range(8)}
    assert len(drawn) > 1 and {len(ids) for ids in drawn} == {3}
    named = np.unique(np.concatenate([rows.positives.values, rows.negatives.values, rows.known.values]))
    assert named.tolist() == list(range(len(rows.passages)))


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"path": "a", "num_samples": 0}, "num_samples"),
        ({"path": "a", "num_samples": True}, "num_samples"),
        ({"path": 5}, "needs a path"),
        ({"num_samples": 5}, "needs a path"),
        ({"path": "a", "weight": 1}, "weight"),
        ("", "needs a path"),
    ],
)
def test_a_wrong_entry_is_named(entry, told):
    with pytest.raises(PipelineError, match=told) as caught:
        parse_sources(["good", entry])
    assert "data source 1" in caught.value.message


def test_entries_are_paths_or_objects():
    assert parse_sources(["a", {"path": "hf://o/r", "num_samples": 3}]) == [Source("a"), Source("hf://o/r", 3)]
    with pytest.raises(PipelineError, match="is empty"):
        parse_sources([])


def test_validation_may_be_absent(tmp_path):
    (tmp_path / "empty.json").touch()
    for spec in (None, str(tmp_path / "no.json"), str(tmp_path / "empty.json"), str(write_ids(tmp_path, []))):
        assert read_sources(spec, seed=0, kind="val") is None
    with pytest.raises(PipelineError, match="does not exist"):
        read_sources([str(tmp_path / "no.json")], seed=0, kind="val")


def test_a_beir_question_becomes_a_row_for_each_positive_and_one_row_in_validation(tmp_path):
    folder = write_beir(tmp_path / "beir")
    (folder / "qrels" / "train.tsv").write_text("q0\tp0\t1\nq0\tp1\t2\nq1\tp5\t0\n")
    (folder / "qrels" / "dev.tsv").write_text("q0\tp0\t1\nq0\tp1\t2\n")
    rows = read_sources(str(folder), seed=0)
    assert rows.question_ids.to_pylist() == ["q0_0", "q0_1"]
    assert [texts_of(rows, "positives", row)[0] for row in range(2)] == [TEXTS["p1"], TEXTS["p0"]]
    assert rows.known.counts.tolist() == [2, 2] and not len(rows.negatives.values)
    val = read_sources(str(folder), seed=0, kind="val")
    assert val.question_ids.to_pylist() == ["q0"] and len(val.corpora[0]) == len(TEXTS)
    assert len(read_sources(str(folder / "qrels" / "train.tsv"), seed=0, kind="val")) == 1
    (folder / "qrels" / "dev.tsv").unlink()
    with pytest.raises(PipelineError, match=r"holds train\.tsv, but not dev\.tsv"):
        read_sources(str(folder), seed=0, kind="val")


def test_scores_of_a_teacher(tmp_path):
    def scores(rows):
        read = read_sources(str(write_lines(tmp_path / "a.jsonl", rows)), seed=0, needs=Needs(teacher=True))
        return [*read.positive_scores.tolist(), *read.negative_scores.tolist()]

    assert scores([columns(0, label=[3, 1, 2])]) == [3, 1, 2]
    margin = columns(0, label=2.5)
    del margin["negative_2"]
    assert scores([margin]) == [2.5, 0]
    doc = inline(0, pos_doc={"text": "a", "score": 5}, neg_doc=[{"text": "b", "score": -1.5}])
    assert scores([doc]) == [5, -1.5]
    for rows, told in (
        ([columns(0, label=[1, 2])], "2 scores for 3 passages"),
        ([columns(0, score="high")], "number or a list"),
        ([columns(0, score=[1, 2, float("nan")])], "finite"),
        ([columns(0, score=1)], "one number for 3 passages"),
        ([columns(0, label=[3, 1, 2]), columns(1)], r"row 1 \(q1\) lacks a teacher's score"),
        ([{"query": "a", "answer": "b", "label": 0}], "no positive"),
    ):
        with pytest.raises(PipelineError, match=told):
            scores(rows)


def test_prefixes_come_from_the_corpus_when_asked(tmp_path):
    path = write_ids(tmp_path)
    metadata = {"corpus_id": "c", "class": "TextQADataset", "query_instruction": "find:", "passage_instruction": ""}
    (tmp_path / "corpus" / "merlin_metadata.json").write_text(json.dumps(metadata))
    rows = read_sources(str(path), seed=0, use_dataset_instruction=True)
    assert set(rows.query_prefixes.to_pylist()) == {"find: "} and set(rows.passages["prefix"].to_pylist()) == {""}
    plain = read_sources(str(path), seed=0)
    assert plain.query_prefixes.null_count == 4 and plain.passages["prefix"].null_count == len(plain.passages)
    with pytest.raises(PipelineError, match="use_dataset_instruction"):
        read_sources(str(FORMATS["jsonl"](tmp_path)), seed=0, use_dataset_instruction=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[2]["neg_doc"].append({"id": "gone"}), ["row 2", "q2", "neg_doc", "'gone'"]),
        (lambda rows: rows[3].update(pos_doc="gone"), ["row 3", "q3", "pos_doc", "'gone'"]),
        (lambda rows: rows[1].update(question="  "), ["row 1", "q1", "empty question"]),
        (lambda rows: rows[1].update(question=None), ["row 1", "q1", "question must be text, found null"]),
        (lambda rows: rows[1].update(neg_doc=[]), ["q1", "no hard negative"]),
        (lambda rows: rows[1].update(neg_doc=rows[1]["pos_doc"]), ["q1", "no hard negative"]),
        (lambda rows: rows[1].update(pos_doc=None), ["row 1", "q1", "no positive"]),
        (lambda rows: rows[1].update(neg_doc=[[1]]), ["row 1", "q1", "neg_doc must be an id", "a list"]),
        (lambda rows: rows[1].update(question_id=1.5), ["row 1", "question_id must be an id"]),
        (lambda rows: rows[1].update(question_id="q0"), ["row 1", "'q0' was used before", "row 0"]),
        (lambda rows: rows[1].update(corpus_id="d"), ["row 1", "q1", "'d' is none of c"]),
        (lambda rows: rows[1].pop("neg_doc"), ["row 1", "q1", "lacks neg_doc"]),
        (lambda rows: rows.append(7), ["row 4", "must be an object"]),
        (lambda rows: rows.clear(), ["no rows"]),
    ],
)
def test_a_wrong_row_is_named(tmp_path, change, told):
    path = write_ids(tmp_path)
    document = json.loads(path.read_text())
    change(document["data"])
    path.write_text(json.dumps(document))
    with pytest.raises(PipelineError) as caught:
        read_sources(str(path), seed=0, needs=Needs(negatives=True))
    for part in (str(path), *told):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"query": "a", "pos_doc": "b", "neg_doc": []}\n{"query": "a", "pos_doc": ', ":2: not valid JSON"),
        ('{"query": "a", "pos_doc": "b", "neg_doc": []}\n{"anchor": "a", "positive": "b"}', ":2 has another format"),
        ('{"query": "a", "pos_doc": {"title": "b"}, "neg_doc": []}', "passage without text (with the keys title)"),
        ('{"query": "a", "pos_doc": {"id": "b"}, "neg_doc": []}', "by id, which needs a corpus"),
        ('{"query": "a", "question": "b", "pos_doc": "b", "neg_doc": []}', "query and question, which mean the same"),
        ('{"query": "a", "pos_doc": "b"}', "lacks neg_doc"),
        ('{"query": "a", "pos_doc": "\\ud800", "neg_doc": []}', "surrogate"),
        ('{"title": "a"}', "no known format has the keys title"),
        ("anchor,positive\na,b,c\n", ":2: another number of cells"),
        ("anchor\tpositive\na\n", ":2: another number of cells"),
        ("anchor,anchor,positive\n", "stands there twice"),
        ("hello\nworld\n", "no known format begins with 'hello'"),
        ("[" * 100000, "not valid JSON"),
        ("", "is empty"),
        (" \n\n", "is empty"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_what_is_accepted(tmp_path, text, told):
    path = _write(tmp_path / "a.jsonl", text)
    with pytest.raises(PipelineError) as caught:
        read_sources(str(path), seed=0)
    assert str(path) in caught.value.message and told in caught.value.message


@pytest.mark.parametrize("fields", [{"data": "2024-01-01"}, {"corpus": "fiqa"}, {"data": 1, "corpus": "fiqa"}])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_single_row_may_have_a_field_data_or_corpus(tmp_path, name, fields):
    row = {"query": "a", "pos_doc": "b", "neg_doc": [], **fields}
    rows = read_sources(str(_write(tmp_path / name, json.dumps(row))), seed=0)
    assert rows.questions.to_pylist() == ["a"]


def test_known_positives_may_be_objects(tmp_path):
    path = write_ids(tmp_path)
    document = json.loads(path.read_text())
    document["data"][1]["known_pos_ids"] = [{"id": "p0"}]
    path.write_text(json.dumps(document))
    rows = read_sources(str(path), seed=0)
    assert rows.passages["id"][int(rows.known[1][0])].as_py() == "p0"


def test_a_corpus_with_one_id_for_two_texts_or_one_corpus_id_for_two_folders_is_refused(tmp_path):
    path = write_ids(tmp_path / "a")
    other = write_ids(tmp_path / "b")
    with pytest.raises(PipelineError, match="corpus_id 'c' stands for two corpora"):
        read_sources([str(path), str(other)], seed=0)
    pq.write_table(pa.table({"id": ["p0", "p0"], "text": ["a", "b"]}), tmp_path / "a" / "corpus" / "train.parquet")
    with pytest.raises(PipelineError, match="'p0' stands for several texts"):
        read_sources(str(path), seed=0)


def test_an_empty_passage_is_refused_where_a_row_names_it(tmp_path):
    with pytest.raises(PipelineError, match=r"row 2 \(q2\): pos_doc names passage 'p2', which is empty"):
        read_sources(str(write_ids(tmp_path, texts=TEXTS | {"p2": " "})), seed=0)
    assert read_sources(str(write_ids(tmp_path, texts=TEXTS | {"p7": " "})), seed=0)


class FakeRepo:
    """A hub repository with one subset of ids and a plain configuration of pairs."""

    described = True

    def __init__(self, name, revision):
        assert (name, revision) == ("org/repo", "v1")
        self.name = name

    def files(self):
        return ["README.md", *(["sub/dataset_metadata.json"] if self.described else [])]

    def json(self, path):
        assert path == "sub/dataset_metadata.json"
        return {"corpus_id": "s"}

    def table(self, config):
        if config == "sub_corpus":
            return pa.table({"id": list(TEXTS), "text": list(TEXTS.values()), "more": [1] * len(TEXTS)})
        if config == "sub":
            return pa.table({"question": ["what is 0?"], "pos_doc": [["p0"]], "neg_doc": [["p1", "p2"]]})
        return pa.Table.from_pylist([columns(n) for n in range(4)])


def test_hub_subsets_and_plain_pairs(monkeypatch):
    monkeypatch.setattr(hub, "Repo", FakeRepo)
    for place in ("hf://org/repo/sub@v1", "hf://org/repo@v1"):
        rows = read_sources(place, seed=0)
        assert rows.question_ids.to_pylist() == ["sub:0"] and texts_of(rows, "negatives", 0)[1] == TEXTS["p2"]
        assert len(rows.corpora[0]) == len(TEXTS) and rows.files == ()
    with pytest.raises(PipelineError, match="no such subset"):
        read_sources("hf://org/repo/other@v1", seed=0)
    monkeypatch.setattr(FakeRepo, "described", False)
    assert len(read_sources("hf://org/repo@v1", seed=0)) == 4
    with pytest.raises(PipelineError, match="not a data set"):
        read_sources("hf://org", seed=0)


def test_the_hub_reader_fetches_with_the_two_libraries_and_wraps_their_errors(monkeypatch, tmp_path):
    (tmp_path / "m.json").write_text('{"corpus_id": "s"}')
    asked = []

    def load_dataset(name, config, split, revision):
        asked.append((name, config, split, revision))
        return SimpleNamespace(with_format=lambda kind: {"arrow": pa.table({"id": ["a"]})}[kind])

    fake = SimpleNamespace(load_dataset=load_dataset)
    api = SimpleNamespace(list_repo_files=lambda name, repo_type, revision: [name, repo_type])
    hub_library = SimpleNamespace(HfApi=lambda: api, hf_hub_download=lambda *a, **k: str(tmp_path / "m.json"))
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub_library)
    repo = hub.Repo("org/repo", "v1")
    assert repo.files() == ["org/repo", "dataset"] and repo.json("m.json") == {"corpus_id": "s"}
    assert repo.table("sub").column_names == ["id"] and asked == [("org/repo", "sub", "train", "v1")]
    monkeypatch.delattr(hub_library, "HfApi")
    with pytest.raises(PipelineError, match="cannot read hf://org/repo: AttributeError") as caught:
        repo.files()
    assert "network" in caught.value.fix
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PipelineError, match="needs the package datasets"):
        repo.table("sub")


class NotThere(BaseHTTPRequestHandler):
    """A hub that knows no repository."""

    def do_GET(self):
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_):
        """Says nothing."""


def test_a_hub_that_answers_404_or_is_not_to_be_asked_is_one_clear_error(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), NotThere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(PipelineError, match="cannot read hf://org/repo: ") as caught:
            read_sources("hf://org/repo/sub", seed=0)
        server.shutdown()
    assert "network" in caught.value.fix and "\n" not in caught.value.message
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PipelineError, match="OfflineModeIsEnabled"):
        read_sources("hf://org/repo/sub", seed=0)


def test_ragged_rows():
    ragged = Ragged.of_counts(np.array([2, 0, 3]), np.array([5, 6, 7, 8, 9]))
    assert [ragged[row].tolist() for row in range(len(ragged))] == [[5, 6], [], [7, 8, 9]]
    places, values = ragged.take(np.array([2, 1, 0, 2]))
    assert places.tolist() == [0, 0, 0, 2, 2, 3, 3, 3] and values.tolist() == [7, 8, 9, 5, 6, 7, 8, 9]
    assert ragged.rows(np.array([1, 2])).counts.tolist() == [0, 3]
    assert ragged.keep(ragged.values != 6).counts.tolist() == [1, 0, 3]

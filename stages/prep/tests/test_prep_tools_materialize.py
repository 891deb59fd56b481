"""`data materialize`: hub subsets and BEIR folders as training files; a failed run leaves what was there."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pipeline_prep.tools import main, materialize

from pipeline.records.passages import read_corpus
from pipeline.records.sources import hub
from pipeline.records.sources.read import read_sources

CORPUS = {"p1": "Lava is hot.", "p2": "Ice is cold.", "p3": "Bread is soft."}


class Repo:
    """A hub repository with two subsets in AutoModel's layout."""

    def __init__(self, name, revision):
        self.name, self.revision = name, revision

    def files(self):
        return ["small/dataset_metadata.json", "large/dataset_metadata.json", "README.md"]

    def json(self, path):
        return {"corpus_id": f"id_{path.split('/')[0]}", "class": "X", "query_instruction": "find it"}

    def table(self, config):
        if config.endswith("_corpus"):
            return pa.table({"id": list(CORPUS), "text": list(CORPUS.values()), "extra": [1, 2, 3]})
        rows = {"question": ["what is hot?", "what is not?"], "pos_doc": [[{"id": "p1"}], [{"id": "p2"}, {"id": "p3"}]]}
        return pa.table(rows | {"neg_doc": [[{"id": "p2"}], []]})


@pytest.fixture
def beir(tmp_path):
    folder = tmp_path / "facts"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": name, "title": f"on {name}", "text": text} for name, text in CORPUS.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    queries = [{"_id": "q1", "text": "what is hot?"}, {"_id": "q2", "text": "what is not?"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\tp1\t1\nq1\tp2\t0\nq2\tp2\t1\nq2\tp3\t2\n"
    )
    return folder


def run(source, output, split="train", negatives=True, overwrite=False):
    options = {"source": str(source), "output": str(output), "split": split}
    return main.main(["materialize", json.dumps(options | {"negatives": negatives, "overwrite": overwrite})])


def test_a_hub_subset_becomes_a_training_file_with_its_whole_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "Repo", Repo)
    assert run("hf://org/repo/small@v1", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["small_corpus", "train.json"]
    made = json.loads((tmp_path / "out" / "train.json").read_text())
    assert made["corpus"] == {"path": "./small_corpus"}
    assert made["data"] == [
        {"question_id": "small:0", "question": "what is hot?", "corpus_id": "id_small",
         "pos_doc": [{"id": "p1"}], "neg_doc": [{"id": "p2"}]},
        {"question_id": "small:1", "question": "what is not?", "corpus_id": "id_small",
         "pos_doc": [{"id": "p2"}, {"id": "p3"}], "neg_doc": []},
    ]  # fmt: skip
    corpus = tmp_path / "out" / "small_corpus"
    assert {name: item.text for name, item in read_corpus(corpus).items()} == CORPUS
    metadata = json.loads((corpus / "merlin_metadata.json").read_text())
    assert metadata == {"corpus_id": "id_small", "class": "TextQADataset", "query_instruction": "find it"}
    assert len(read_sources(str(tmp_path / "out" / "train.json"), seed=0)) == 2


def test_one_corpus_for_each_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hub, "Repo", Repo)
    assert run("hf://org/repo", tmp_path / "out") == 1
    assert "holds 2 corpora: large, small" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("negatives", [True, False])
def test_a_beir_folder_keeps_questions_whole_and_negatives_if_asked(tmp_path, beir, negatives):
    assert run(beir, tmp_path / "out", negatives=negatives) == 0
    made = json.loads((tmp_path / "out" / "train.json").read_text())
    assert [(row["question_id"], [item["id"] for item in row["pos_doc"]]) for row in made["data"]] == [
        ("q1", ["p1"]),
        ("q2", ["p3", "p2"]),  # judged higher, hence first
    ]
    assert made["data"][0]["neg_doc"] == ([{"id": "p2"}] if negatives else [])
    assert read_corpus(tmp_path / "out" / "facts_corpus")["p3"].title == "on p3"


def test_a_folder_is_replaced_only_on_request_and_never_with_foreign_files(tmp_path, beir, capsys):
    out = tmp_path / "out"
    out.mkdir()
    assert run(beir, out) == 0 and run(beir, out) == 1
    assert "is there already" in capsys.readouterr().err
    assert run(beir, out, overwrite=True) == 0
    (out / "notes.txt").write_text("mine")
    assert run(beir, out, overwrite=True) == 1
    assert "notes.txt" in capsys.readouterr().err and (out / "notes.txt").read_text() == "mine"
    for wrong in (beir, tmp_path, beir / "inner"):
        assert run(beir, wrong, overwrite=True) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts", "out"]


def test_a_run_that_fails_in_the_middle_leaves_the_old_folder(tmp_path, beir, monkeypatch, capsys):
    out = tmp_path / "out"
    assert run(beir, out) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def fail(*_):
        raise OSError(28, "No space left on device", "train.json")

    monkeypatch.setattr(materialize.Document, "save", fail)
    assert run(beir, out, overwrite=True) == 1
    assert capsys.readouterr().err == "error: train.json: No space left on device\n"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts", "out"]


@pytest.mark.parametrize("source", ["nowhere", "hf://org", "facts/corpus.jsonl"])
def test_what_is_no_source_is_one_error(tmp_path, beir, capsys, source):
    place = source if source.startswith("hf://") else tmp_path / source
    assert run(place, tmp_path / "out") == 1
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "out").exists()
    assert run(beir, tmp_path / "out", split="dev") == 1
    assert "train.tsv" in capsys.readouterr().err

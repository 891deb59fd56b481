"""Broken inputs through the stage as its process runs it: one clear error and exit code 1, or a counted rejection.

Whatever happens, what an earlier run made stays as it was, and nothing half-written is left.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from pipeline_prep.main import main

from pipeline.config import resolve
from pipeline.retrieval.encoder import BiEncoder
from pipeline.run.freshness import State, status_of
from pipeline.run.handoff import write_handoff
from pipeline.run.log import LOGGER
from pipeline.run.stage import execute, run_stage

SHARES = ("train_ratio=0.5", "val_ratio=0.25", "test_ratio=0.25")
QRELS = "query-id\tcorpus-id\tscore\n"


class Stage:
    """A stage's folder that a finished run filled, and the way to run it again."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, capsys) -> None:
        self.root, self.patch, self.capsys = root, patch, capsys
        self.folder = root / "stage1_data_prep"

    def run(self, *overrides: str) -> tuple[int, str]:
        """Exit code and what was said."""
        common = [f"run_dir={self.root}", "device=cpu", "precision=fp32", "round_trip_top_k=null", *SHARES]
        self.resolved = resolve("embed", "prep", "demo", [*common, *overrides])
        handoff = write_handoff(self.resolved, self.root / "handoff.yaml")
        self.patch.setattr(sys, "argv", ["pipeline-prep", "--config", str(handoff)])
        logging.getLogger(LOGGER).handlers.clear()
        with pytest.raises(SystemExit) as ended:
            run_stage("prep", main)
        said = self.capsys.readouterr()
        return ended.value.code, said.out + said.err

    @property
    def state(self) -> State:
        """What `pipeline status` says after the last run."""
        return status_of(self.resolved).state

    def outputs(self) -> dict[str, bytes]:
        """Every file that a reader may take for a result."""
        kept = ("logs/", ".lock", "cache_embeddings/", "manifest.json", ".started.json")
        names = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in names.items() if not name.startswith(kept)}

    def refuses(self, named: Path, *overrides: str) -> str:
        """Run into an error that names this file; the outputs of the earlier run are not touched."""
        before = self.outputs()
        code, said = self.run(*overrides)
        assert code == 1, said
        assert said.count("error: ") == 1 and str(named) in said and "Traceback" not in said, said
        assert self.outputs() == before and "train.json" in before
        assert self.state is State.PARTIAL
        return said


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus_records, write_records):
    root = tmp_path_factory.mktemp("finished")
    write_records(root / "sdg", corpus_records)
    settings = [f"run_dir={root}", f"sdg_input_path={root / 'sdg'}", "device=cpu", "precision=fp32"]
    assert execute(resolve("embed", "prep", "demo", [*settings, "round_trip_top_k=null", *SHARES]), main) is None
    return root


@pytest.fixture
def stage(tmp_path, finished, monkeypatch, capsys):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return Stage(tmp_path, monkeypatch, capsys)


def written(path: Path, content: bytes | str | object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def edited(value, place: tuple, new):
    held = json.loads(json.dumps(value))
    inner = held
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = new
    return held


def truncated(records) -> str:
    return json.dumps(records)[:-700]


def second_line_cut(records) -> str:
    lines = [json.dumps(record) for record in records]
    return "\n".join([lines[0], lines[1][:-300], *lines[2:]])


def ten_megabytes_cut(records) -> str:
    line = json.dumps(edited(records[0], ("chunks", 0, "text"), "word " * 2_000_000))
    return json.dumps(records[1]) + "\n" + line[:-10]


def half_a_character(records) -> bytes:
    return json.dumps(records).encode().replace(b"Lava", b"\xff\xfe")


def with_change(*place, to):
    return lambda records: json.dumps(edited(records, place, to))


BROKEN = {
    "truncated JSON": truncated,
    "a line cut off": second_line_cut,
    "a line of ten megabytes, cut off": ten_megabytes_cut,
    "binary": lambda records: bytes(range(256)) * 100,
    "empty": lambda records: b"",
    "blank": lambda records: b"\n \n",
    "an empty list": lambda records: b"[]",
    "no UTF-8": half_a_character,
    "chunks of a wrong type": with_change(3, "chunks", to={"a": 1}),
    "a chunk of a wrong type": with_change(3, "chunks", 1, to=7),
    "a chunk's text of a wrong type": with_change(3, "chunks", 1, "text", to=["a"]),
    "a chunk id that stands twice": with_change(3, "chunks", 1, "chunk_id", to=1),
    "pairs of a wrong type": with_change(3, "deduplicated_qa_pairs", to="none"),
    "no file name": with_change(3, "file_name", to=[]),
    "a file name of a wrong type": with_change(3, "file_name", to=5),
    "a record of a wrong type": with_change(3, to=[1, 2]),
    "a record without chunks": with_change(3, to={"file_name": ["x"], "deduplicated_qa_pairs": []}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_error_and_nothing_is_touched(stage, corpus_records, name):
    path = written(stage.root / "broken.json", BROKEN[name](corpus_records))
    stage.refuses(path, f"sdg_input_path={path}")


def test_an_empty_folder_and_one_of_mixed_formats_are_errors(stage, corpus_records):
    (stage.root / "empty").mkdir()
    stage.refuses(stage.root / "empty", f"sdg_input_path={stage.root / 'empty'}")
    mixed = stage.root / "mixed"
    written(mixed / "a.json", corpus_records)
    written(mixed / "b.jsonl", json.dumps({"query": "q", "pos_doc": ["p"], "neg_doc": []}) + "\n")
    said = stage.refuses(mixed, f"sdg_input_path={mixed}")
    assert "a.json" in said and "b.jsonl" in said


PAIR = {"question_id": "q", "query": "What?", "pos_doc": ["this"], "neg_doc": ["that"]}
BROKEN_PAIRS = {
    "an id that stands twice": [PAIR, PAIR],
    "a question of a wrong type": [PAIR, {**PAIR, "question_id": "r", "query": 5}],
    "positives of a wrong type": [PAIR, {**PAIR, "question_id": "r", "pos_doc": 5}],
    "a score that is no number": [PAIR, {**PAIR, "question_id": "r", "pos_doc": [{"text": "x", "score": "high"}]}],
}


@pytest.mark.parametrize("name", BROKEN_PAIRS)
def test_broken_pairs_are_one_error_that_names_the_line(stage, name):
    path = written(stage.root / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in BROKEN_PAIRS[name]))
    stage.refuses(Path(f"{path}:2"), f"sdg_input_path={path}")


ROW = ("data", 0)
BROKEN_ROWS = {
    "an unknown positive": ((*ROW, "pos_doc"), [{"id": "d_unknown"}]),
    "no positive": ((*ROW, "pos_doc"), []),
    "rows of a wrong type": (("data",), {"a": 1}),
    "a row of a wrong type": (ROW, 5),
    "positives of a wrong type": ((*ROW, "pos_doc"), 5),
    "a positive without an id": ((*ROW, "pos_doc"), [{"text": "x"}]),
    "a score of a wrong type": ((*ROW, "pos_doc", 0, "score"), "high"),
    "known positives of a wrong type": ((*ROW, "known_pos_ids"), 5),
    "a corpus that is not there": (("corpus", "path"), "./nowhere"),
    "a corpus of a wrong type": (("corpus",), 5),
    "a corpus path of a wrong type": (("corpus", "path"), 5),
}


@pytest.mark.parametrize("name", BROKEN_ROWS)
def test_a_broken_training_file_is_one_error(stage, name):
    place, new = BROKEN_ROWS[name]
    good = json.loads((stage.folder / "train.json").read_text())
    path = written(stage.root / "given" / "train.json", edited(good, place, new))
    shutil.copytree(stage.folder / "corpus", path.parent / "corpus")
    named = path.parent if name == "a corpus that is not there" else path  # the message names the corpus
    stage.refuses(named, f"train_input_file={path}")


def test_a_training_file_with_an_id_twice_or_cut_off_is_one_error(stage):
    good = json.loads((stage.folder / "train.json").read_text())
    shutil.copytree(stage.folder / "corpus", stage.root / "given" / "corpus")
    path = written(stage.root / "given" / "train.json", {**good, "data": [*good["data"], good["data"][0]]})
    assert good["data"][0]["question_id"] in stage.refuses(path, f"train_input_file={path}")
    written(path, json.dumps(good)[:-50])
    stage.refuses(path, f"train_input_file={path}")


BROKEN_BEIR = {
    "no corpus": ("corpus.jsonl", None),
    "an empty corpus": ("corpus.jsonl", ""),
    "a line cut off": ("queries.jsonl", '{"_id": "q1", "te'),
    "binary": ("queries.jsonl", bytes(range(256))),
    "a question id that stands twice": ("queries.jsonl", '{"_id": "q1", "text": "a"}\n{"_id": "q1", "text": "b"}\n'),
    "a passage id that stands twice": ("corpus.jsonl", '{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}\n'),
    "a judgement that is no number": ("qrels/test.tsv", QRELS + "q1\td1\tNaN\n"),
    "a judgement of an unknown passage": ("qrels/test.tsv", QRELS + "q1\td9\t1\n"),
    "a text of a wrong type": ("queries.jsonl", '{"_id": "q1", "text": 5}'),
    "judgements that are binary": ("qrels/test.tsv", b"\xff\xfe\x00"),
    "no judgement at all": ("qrels/test.tsv", QRELS),
}


@pytest.mark.parametrize("key", ["sdg_input_path", "frozen_eval"])
@pytest.mark.parametrize("name", BROKEN_BEIR)
def test_a_broken_beir_folder_is_one_error(stage, key, name):
    folder = stage.root / "beir"
    written(folder / "corpus.jsonl", '{"_id": "d1", "text": "one"}\n{"_id": "d2", "text": "two"}\n')
    written(folder / "queries.jsonl", '{"_id": "q1", "text": "a"}\n')
    written(folder / "qrels" / "test.tsv", QRELS + "q1\td1\t1\n")
    file, content = BROKEN_BEIR[name]
    (folder / file).unlink() if content is None else written(folder / file, content)
    source = [] if key == "sdg_input_path" else [f"sdg_input_path={stage.root / 'sdg'}"]
    stage.refuses(folder, f"{key}={folder}", *source)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"exact": 5}', '{"exact": {"groups": {"a": [5]}}}', b"\xff\xfe"])
def test_broken_groups_are_one_error(stage, content):
    path = written(stage.root / "groups.json", content)
    source = f"sdg_input_path={stage.root / 'sdg'}"
    stage.refuses(path, source, "split_strategy=cluster", f"groups_json=[{path}]")


def test_a_model_whose_vectors_are_not_finite_is_one_error(stage, monkeypatch):
    def broken(self, tokens, kind="passage", **how):
        return np.full((len(tokens), 384), np.nan, np.float32)

    monkeypatch.setattr(BiEncoder, "encode_tokens", broken)
    before = stage.outputs()
    code, said = stage.run(f"sdg_input_path={stage.root / 'sdg'}", f"cache_embeddings_dir={stage.root / 'other'}")
    assert code == 1 and "no finite vector" in said and "precision=fp32" in said and "Traceback" not in said
    assert stage.outputs() == before and not list((stage.root / "other").rglob("*.npy"))


def test_single_bad_pairs_are_counted_and_the_rest_is_used(stage, corpus_records):
    changes = [
        ((0, "deduplicated_qa_pairs", 0), 5, "pair unreadable"),
        ((1, "deduplicated_qa_pairs", 0, "question"), " ", "empty question"),
        ((2, "deduplicated_qa_pairs", 0, "segment_ids"), [], "no segments"),
        ((3, "deduplicated_qa_pairs", 0, "segment_ids"), [1, 99], "unknown segment"),
        ((4, "qa_evaluations", "evaluations", 0, "overall", "score"), float("nan"), "judgement unreadable"),
        ((5, "qa_evaluations", "evaluations", 0, "overall", "score"), "good", "judgement unreadable"),
        ((6, "qa_evaluations", "evaluations", 0, "overall", "score"), 2, "below quality_threshold"),
    ]
    records = corpus_records
    for place, new, _ in changes:
        records = edited(records, place, new)
    path = written(stage.root / "some_bad.json", records)
    code, said = stage.run(f"sdg_input_path={path}")
    assert code == 0, said
    lines = [json.loads(line) for line in (stage.folder / "rejected.jsonl").read_text().splitlines()]
    assert sorted(line["reason"] for line in lines) == sorted(reason for _, _, reason in changes)
    assert all(str(path) in line["where"] for line in lines)
    rows = [json.loads((stage.folder / name).read_text())["data"] for name in ("train.json", "val.json")]
    asked = (stage.folder / "eval_beir" / "queries.jsonl").read_text().splitlines()
    assert sum(map(len, rows)) + len(asked) == 36 - len(changes)
    assert stage.state is State.DONE


@pytest.mark.parametrize("at", ["corpus", "train_mined", "eval_beir", "report"])
def test_a_write_that_fails_leaves_no_finished_run(stage, monkeypatch, at):
    """The disk is full in the middle of writing: every file is the old one or the new one."""
    import pipeline_prep.outputs as outputs

    whole = stage.outputs()
    place = {"corpus": "write_corpus", "train_mined": "TrainingFile", "eval_beir": "write_beir", "report": "write_json"}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, place[at], full)
    code, said = stage.run(f"sdg_input_path={stage.root / 'sdg'}", "seed=7")
    assert code == 1 and "No space left" in said and "make room" in said and "Traceback" not in said
    assert stage.state is State.PARTIAL
    after = stage.outputs()
    assert set(after) == set(whole) and not any(mark in name for name in after for mark in (".tmp", ".pipeline-tmp"))
    for name in ("train.json", "val.json", "train_mined.automodel.json"):
        assert json.loads(after[name])["data"]

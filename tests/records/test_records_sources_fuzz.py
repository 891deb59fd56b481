"""Broken data files: each gives rows or one `PipelineError`, never another exception."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, write_corpus
from pipeline.records.sources.read import Needs, read_sources

TEXTS = [f"passage {number}" for number in range(6)]
INLINE = [
    {"question_id": f"q{n}", "query": f"question {n}", "pos_doc": {"text": TEXTS[n], "title": "t", "score": 2.5},
     "neg_doc": [TEXTS[n + 1], {"text": TEXTS[n + 2], "score": 1}]}
    for n in range(3)
]  # fmt: skip
COLUMNS = [
    {"id": n, "anchor": f"question {n}", "positive": TEXTS[n], "negative_1": TEXTS[n + 1], "label": [1.5, 0.5]}
    for n in range(3)
]
BY_ID = [
    {"question_id": f"q{n}", "question": f"question {n}", "corpus_id": "c", "pos_doc": [{"id": f"p{n}", "score": 1.0}],
     "neg_doc": [f"p{n + 1}"], "known_pos_ids": [f"p{n}"]}
    for n in range(3)
]  # fmt: skip
METADATA = {"corpus_id": "c", "class": "TextQADataset", "query_instruction": "find", "passage_instruction": "passage"}
PASSAGES = [{"_id": f"p{n}", "text": text, "title": ""} for n, text in enumerate(TEXTS)]
QUERIES = [{"_id": f"q{n}", "text": f"question {n}"} for n in range(3)]

# What a person or a program may have put where something else belongs.
WRONG = [
    None, True, 0, -1, 1.5, float("nan"), float("-inf"), 10**400, "", " ", "\ud800", "\0", "x", "p5", "q0", [], {},
    [[]], [None], [{}], {"id": None}, {"id": [1]}, {"text": 3}, {"path": "../.."}, {"path": "\0"},
    {"id": "p1", "score": "high"},
]  # fmt: skip
BOM = b"\xef\xbb\xbf"
NESTED = "[" * 50_000


def write_valid(folder: Path) -> dict[str, Path]:
    """One source of each format; name -> what `read_sources` is given."""
    write_corpus(folder / "ids" / "corpus", [Passage(f"p{n}", text) for n, text in enumerate(TEXTS)], "c")
    (folder / "ids" / "corpus" / "merlin_metadata.json").write_text(json.dumps(METADATA))
    (folder / "ids" / "train.json").write_text(json.dumps({"corpus": {"path": "corpus"}, "data": BY_ID}))
    (folder / "beir" / "qrels").mkdir(parents=True)
    write_lines(folder / "beir" / "corpus.jsonl", PASSAGES)
    write_lines(folder / "beir" / "queries.jsonl", QUERIES)
    (folder / "beir" / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq0\tp0\t1\nq1\tp1\t2\nq1\tp3\t0\n"
    )
    write_lines(folder / "inline.jsonl", INLINE)
    (folder / "inline.json").write_text(json.dumps({"data": INLINE}, indent=1))
    write_lines(folder / "columns.jsonl", COLUMNS)
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        rows = [["query", "answer", "negative"], ["question 0", "text, 0", "a"], ["question 1", 'text "1"', ""]]
        quoted = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
        (folder / f"columns{ending}").write_text("\n".join(quoted) + "\n")
    write_parquet(folder / "columns.parquet", COLUMNS)
    names = ["inline.jsonl", "inline.json", "columns.jsonl", "columns.csv", "columns.tsv", "columns.parquet", "beir"]
    return {name: folder / name for name in names} | {"ids": folder / "ids" / "train.json"}


def write_lines(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: Path, rows: list) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("valid")
    for place in write_valid(folder).values():
        assert len(read_sources(str(place), seed=0)) >= 2
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("broken")


def read_or_refuse(place: Path) -> str:
    """The message of the error, or "" for rows; any other exception is a failed test."""
    try:
        read_sources(str(place), seed=0, needs=Needs(negatives=True, teacher=True))
    except PipelineError as error:
        return error.message
    return ""


FILES = {
    "inline.jsonl": "inline.jsonl", "inline.json": "inline.json", "columns.jsonl": "columns.jsonl",
    "columns.csv": "columns.csv", "columns.tsv": "columns.tsv", "columns.parquet": "columns.parquet",
    "beir/corpus.jsonl": "beir", "beir/queries.jsonl": "beir", "beir/qrels/train.tsv": "beir",
    "ids/train.json": "ids/train.json", "ids/corpus/train.parquet": "ids/train.json",
    "ids/corpus/merlin_metadata.json": "ids/train.json",
}  # fmt: skip
"""File that is broken -> source that is read."""

fuzz = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def fresh(valid: Path, broken: Path) -> Path:
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(valid, broken)
    return broken


@pytest.mark.parametrize("name", FILES)
@fuzz
@given(start=st.integers(0, 600), cut=st.integers(0, 600), put=st.binary(max_size=12))
@example(start=0, cut=10**9, put=b"")
@example(start=0, cut=10**9, put=b"\xff\xfe\x00\x01")
@example(start=0, cut=10**9, put=NESTED.encode())
@example(start=0, cut=10**9, put=b'{"a": ' + b"1" * 5000 + b"}")
@example(start=0, cut=10**9, put=b"PAR1")
@example(start=20, cut=10**9, put=b"")
@example(start=0, cut=0, put=BOM)
def test_damaged_bytes(valid, broken, name, start, cut, put):
    path = fresh(valid, broken) / name
    content = path.read_bytes()
    path.write_bytes(content[:start] + put + content[start + cut :])
    message = read_or_refuse(broken / FILES[name])
    if cut == 10**9 and start == 0:
        assert message
    if (start, cut, put) == (0, 0, BOM) and "parquet" not in name:
        assert "not valid" not in message


STRUCTURED = {
    "inline.jsonl": INLINE,
    "inline.json": {"data": INLINE},
    "columns.jsonl": COLUMNS,
    "columns.parquet": COLUMNS,
    "beir/corpus.jsonl": PASSAGES,
    "beir/queries.jsonl": QUERIES,
    "ids/train.json": {"corpus": {"path": "corpus"}, "data": BY_ID},
    "ids/corpus/merlin_metadata.json": METADATA,
}


def places(value, path=()):
    """The path of every value inside a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield (*path, name)
        yield from places(item, (*path, name))


def write_document(path: Path, document) -> bool:
    """False where the format itself cannot hold the document."""
    if path.suffix == ".parquet":
        try:
            write_parquet(path, document)
        except (TypeError, ValueError, OverflowError, AttributeError, ArithmeticError, NotImplementedError):
            return False
    elif path.suffix == ".jsonl":
        write_lines(path, document)
    else:
        path.write_text(json.dumps(document))
    return True


@pytest.mark.parametrize("name", STRUCTURED)
@settings(fuzz, max_examples=40)
@given(data=st.data())
def test_wrong_values(valid, broken, name, data):
    document = copy.deepcopy(STRUCTURED[name])
    place = data.draw(st.sampled_from(list(places(document))))
    inner = document
    for part in place[:-1]:
        inner = inner[part]
    if data.draw(st.booleans()):
        del inner[place[-1]]
    else:
        inner[place[-1]] = data.draw(st.sampled_from(WRONG))
    if write_document(fresh(valid, broken) / name, document):
        read_or_refuse(broken / FILES[name])


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_document_that_was_not_changed_is_read(valid, broken, name):
    assert write_document(fresh(valid, broken) / name, STRUCTURED[name])
    assert len(read_sources(str(broken / FILES[name]), seed=0)) >= 2

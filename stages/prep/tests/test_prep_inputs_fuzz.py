"""Broken inputs: each gives passages and questions, or one `PipelineError` that names the file; never a traceback."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.read import read_input

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, write_corpus

CONFIG = SimpleNamespace(quality_threshold=7.0, criterion_minimums={"accuracy": 6}, drop_unanswerable=True)
RECORD = {
    "file_name": ["a.txt"], "source_id": "a.txt",
    "chunks": [{"chunk_id": n, "text": f"chunk {n}", "title": "T", "doc_id": "a.txt"} for n in (1, 2)],
    "deduplicated_qa_pairs": [
        {"question": f"q{n}", "answer": "a", "segment_ids": [n], "hop_count": 1, "hop_contexts": [{"hop": 1}]}
        for n in (1, 2)
    ],
    "qa_evaluations": {"evaluations": [{"overall": {"score": 9}, "accuracy": {"score": 8}} for _ in range(2)]},
}  # fmt: skip
INLINE = {
    "question_id": "q",
    "query": "q",
    "pos_doc": [{"text": "p", "title": "t"}],
    "neg_doc": ["n"],
    "more": {"a": 1},
}
COLUMNS = {"id": 1, "anchor": "q", "positive": "p", "negative_1": "n", "label": [1, 0], "metadata": {"a": 1}}
COHERE = {"query": "q", "relevant_passages": ["p"], "hard_negatives": ["n"]}
IDS = {
    "corpus": {"path": "corpus"},
    "data": [
        {"question_id": "q", "question": "q", "corpus_id": "c", "pos_doc": [{"id": "p0"}], "neg_doc": ["p1"],
         "known_pos_ids": ["p0"], "metadata": {"a": [1]}}
    ],
}  # fmt: skip
VALID = {"sdg": [RECORD], "inline": [INLINE], "columns": [COLUMNS], "cohere": [COHERE], "ids": IDS}
CORPUS = [{"_id": f"p{n}", "text": f"passage {n}", "metadata": {"documents": ["a.txt"]}} for n in range(2)]
QUERIES = [{"_id": "q0", "text": "q", "metadata": {"a": 1}}]

# What a person or a program may have put where something else belongs.
WRONG = [
    None, True, 0, -1, 1.5, float("nan"), float("-inf"), 10**400, "", " ", "\ud800", "\0", "x", "[1", '{"a": 1}',
    [], {}, [[]], [None], [{}], {"id": None}, {"text": 3}, {"score": "x"}, {"evaluations": 3}, {"path": "../.."},
]  # fmt: skip


def outcome(path):
    """What was read, checked for what must hold; None after a clear error."""
    funnel = Funnel()
    try:
        converted = read_input(path, CONFIG, funnel)
    except PipelineError as error:
        assert str(path) in error.message or "merlin_metadata.json" in error.message
        return None
    for question in converted.questions:
        assert question.text.strip() and question.positives and not {*question.positives} & {*question.negatives}
        assert {*question.positives, *question.negatives} <= set(converted.passages)
    # Whatever is read can be written.
    rows = [[question.text, question.documents, question.metadata] for question in converted.questions]
    rows += [[item.id, item.text, item.title, item.documents] for item in converted.passages.values()]
    json.dumps([rows, funnel.rejected, funnel.table()], ensure_ascii=False, allow_nan=False).encode("utf-8")
    assert all(line["step"] and line["reason"] for line in funnel.rejected)
    return converted


def places(value, path=()):
    """Every place in a nested value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from places(item, (*path, name))


def changed(value, path, new):
    if not path:
        return new
    held = copy.deepcopy(value)
    place = held
    for name in path[:-1]:
        place = place[name]
    if new is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return held


def write(folder, name, value):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    if name == "ids" and not (folder / "corpus").exists():
        write_corpus(folder / "corpus", [Passage(f"p{n}", f"passage {n}") for n in range(2)], "c")
    return path


@pytest.mark.parametrize("name", VALID)
def test_the_valid_ones_are_read(tmp_path, name):
    assert len(outcome(write(tmp_path, name, VALID[name])).questions) == (2 if name == "sdg" else 1)


@pytest.mark.parametrize("name", VALID)
def test_a_wrong_value_at_every_place(tmp_path, name):
    for path in places(VALID[name]):
        for new in [*WRONG, *([KeyError] if path else [])]:
            outcome(write(tmp_path, name, changed(VALID[name], path, new)))


@pytest.mark.parametrize("file", ["corpus", "queries"])
def test_a_wrong_value_at_every_place_of_a_beir_folder(tmp_path, file):
    rows = {"corpus": CORPUS, "queries": QUERIES}
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\tp0\t1\nq0\tp1\t0\n")
    for path in list(places(rows[file]))[1:]:
        for new in [*WRONG, KeyError]:
            for name, held in (rows | {file: changed(rows[file], path, new)}).items():
                (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
            outcome(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(VALID)), data=st.data())
def test_cut_and_garbled_files(tmp_path, name, data):
    held = VALID[name]
    whole = json.dumps(held) if name == "ids" else "".join(json.dumps(row) + "\n" for row in [*held, *held])
    content = whole.encode()
    cut = data.draw(st.integers(0, len(content) - 1))
    junk = data.draw(st.sampled_from([b"", b"\xff\xfe", b"\0\0", b"]", b"}\n{", b"\xef\xbb\xbf", b"NaN", b'"']))
    rest = data.draw(st.sampled_from([b"", content[cut:], content[cut + 1 :]]))
    write(tmp_path, name, held).write_bytes(content[:cut] + junk + rest)
    outcome(tmp_path / f"{name}.json")


@pytest.mark.parametrize("name", ["sdg", "inline", "columns", "cohere"])
def test_a_line_of_ten_megabytes(tmp_path, name):
    long = "word " * 2_000_000
    text = "".join(json.dumps(row) + "\n" for row in [*VALID[name], *VALID[name]])
    marks = {"sdg": '"chunk 1"', "inline": '"p"', "columns": '"p"', "cohere": '"p"'}
    text = text.replace('"question_id": "q"', '"question_id": "r"', 1).replace('"id": 1', '"id": 2', 1)
    path = tmp_path / "long.jsonl"
    path.write_text(text.replace(marks[name], json.dumps(long), 1))
    assert long in {passage.text for passage in outcome(path).passages.values()}
    path.write_text(text.replace('"q"', json.dumps(long), 1) + '{"broken": "' + long)
    assert outcome(path) is None


BROKEN = {
    "empty": b"",
    "blank": b" \n\n",
    "binary": bytes(range(256)) * 50,
    "zeros": b"\0" * 5000,
    "truncated parquet": b"PAR1" + b"\0" * 500,
    "gzip": b"\x1f\x8b\x08\x00" + b"\1" * 90,
    "utf-16": '[{"query": "q"}]'.encode("utf-16"),
    "nested": b"[" * 100_000,
    "nested object": b'[{"chunks": ' + b"[" * 3000 + b"]" * 3000 + b"}]",
    "digits": b'[{"chunks": ' + b"1" * 9000 + b"}]",
    "number": b"5",
    "rows of numbers": b"[1, 2]",
    "unknown keys": b'{"title": "x"}\n{"title": "y"}',
    "text": b"hello\nworld",
    "two layouts": json.dumps(RECORD).encode() + b"\n" + json.dumps(INLINE).encode(),
    "two layouts of pairs": json.dumps(INLINE).encode() + b"\n" + json.dumps(COHERE).encode(),
    "pairs, then a record": json.dumps(COHERE).encode() + b"\n" + json.dumps(RECORD).encode(),
    "an id that stands twice": json.dumps([INLINE, INLINE]).encode(),
    "a chunk id that stands twice": json.dumps(
        changed([RECORD], (0, "chunks", 1, "chunk_id"), 1)
    ).encode(),
    "scores that are no number": json.dumps(changed([COLUMNS], (0, "label"), [float("nan"), 0])).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_can_not_be_read_is_an_error(tmp_path, name):
    path = tmp_path / "input.json"
    path.write_bytes(BROKEN[name])
    assert outcome(path) is None
    assert outcome(tmp_path) is None


@pytest.mark.parametrize("depth", [700, 900, 940, 960, 980])
def test_a_deep_value_is_no_crash(tmp_path, depth):
    deep = "[" * depth + "]" * depth
    for name, held in VALID.items():
        for mark in ('"a"', '"p"', '"q1"', '"n"', "9", "[1]", '["a.txt"]', '"a.txt"', "{"):
            path = write(tmp_path, name, held)
            path.write_text(path.read_text().replace(mark, deep))
            outcome(path)


def test_a_cut_parquet_file_and_one_of_other_types(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([RECORD] * 20), path)
    content = path.read_bytes()
    for end in range(0, len(content), max(1, len(content) // 20)):
        path.write_bytes(content[:end])
        assert outcome(path) is None
    for name in ("file_name", "chunks", "deduplicated_qa_pairs", "qa_evaluations"):
        pq.write_table(pa.Table.from_pylist([{**RECORD, name: 3}]), path)
        outcome(path)

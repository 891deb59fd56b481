from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import PipelineError
from pipeline.records.sdg import batch_name, read_records, record_files, write_batch


def record(name="a.txt", **more):
    return {"file_name": [name], "chunks": [], "deduplicated_qa_pairs": [], **more}


def names(path):
    return [item["file_name"][0] for _, item in read_records(path)]


def test_batches_are_read_in_natural_order_and_alone(tmp_path):
    for index in (10, 9, 0):
        write_batch(tmp_path, index, index * 2, [record(f"{index}.txt")])
    (tmp_path / "sample.jsonl").write_text(json.dumps(record("other.txt")))
    assert batch_name(1, 12, 23) == "generated_batch1_12_23.json"
    assert names(tmp_path) == ["0.txt", "9.txt", "10.txt"]


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize("form", ["list", "lines", "object", "lines after a byte order mark"])
def test_the_content_tells_the_form_not_the_ending(tmp_path, form, ending):
    rows = [record("a.txt")] if form == "object" else [record("a.txt"), record("b.txt")]
    lines = "\r\n".join(json.dumps(row) for row in rows) + "\n\n"
    text = {"list": json.dumps(rows, indent=1), "object": json.dumps(rows[0], indent=1)}.get(form, lines)
    path = tmp_path / f"data.{ending}"
    path.write_text(("\ufeff" if "mark" in form else "") + text, encoding="utf-8")
    assert names(path) == names(tmp_path) == [row["file_name"][0] for row in rows]


def test_line_separators_inside_a_string_end_no_line(tmp_path):
    odd = "one\u2028two\x85three\x0cfour"
    rows = [record(text=odd), record("b.txt")]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    assert next(iter(read_records(tmp_path)))[1]["text"] == odd
    assert names(tmp_path) == ["a.txt", "b.txt"]


def test_a_single_file_name_becomes_a_list(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([record() | {"file_name": "a.txt"}]))
    assert names(tmp_path) == ["a.txt"]


def test_the_handoff_file_leads_to_the_records(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere.data").write_text(json.dumps(record()))
    handoff = tmp_path / "run/generation_result.json"
    handoff.write_text(json.dumps({"schema_version": 1, "output_path": "../elsewhere.data"}))
    assert names(handoff) == names(tmp_path / "run") == ["a.txt"]
    handoff.write_text(json.dumps({"schema_version": 1, "output_path": str(tmp_path / "elsewhere.data")}))
    assert names(handoff) == ["a.txt"]


def test_a_folder_with_a_handoff_file_stands_for_what_it_names(tmp_path):
    (tmp_path / "run2.jsonl").write_text(json.dumps(record("new.txt")))
    (tmp_path / "run1.jsonl").write_text(json.dumps(record("old.txt")))
    (tmp_path / "stats.json").write_text("{}")
    (tmp_path / "generation_result.json").write_text(json.dumps({"schema_version": 1, "output_path": "run2.jsonl"}))
    assert names(tmp_path) == ["new.txt"]
    (tmp_path / "generated_batch0_0_0.json").write_text(json.dumps([record("batch.txt")]))
    assert names(tmp_path) == ["batch.txt"]


def test_endings_are_known_in_any_case(tmp_path):
    (tmp_path / "A.JSONL").write_text(json.dumps(record()))
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 2, "output_path": "x"}', "needs schema_version 1"),
        ("[]", "needs schema_version 1"),
        ("{", "generation_result.json:1: not valid JSON"),
        ('{"schema_version": 1, "output_path": "gone.jsonl"}', "points at .*gone.jsonl, which does not exist"),
    ],
)
def test_a_bad_handoff_file_is_named(tmp_path, text, message):
    (tmp_path / "generation_result.json").write_text(text)
    with pytest.raises(PipelineError, match=message):
        record_files(tmp_path / "generation_result.json")


def test_logs_and_manifests_beside_the_records_are_no_records(tmp_path):
    for name in ("manifest.json", "usage.json", ".hidden.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(PipelineError, match="holds no records"):
        record_files(tmp_path)
    with pytest.raises(PipelineError, match="nowhere does not exist"):
        record_files(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "a"', r"data.json:1: not valid JSON"),
        (json.dumps(record()) + "\n{broken", r"data.json:2: not valid JSON"),
        ("[1]", r"data.json: record 0: a record must be an object, found int"),
        ('[{"file_name": "a"}]', r"data.json: record 0: the record lacks chunks, deduplicated_qa_pairs"),
        (json.dumps(record()) + '\n{"file_name": "a"}', r"data.json:2: the record lacks chunks"),
        (json.dumps(record() | {"file_name": None}), r"data.json: record 0: file_name must be a name or a list"),
        (json.dumps(record() | {"file_name": []}), r"data.json: record 0: file_name must be"),
    ],
)
def test_a_bad_record_is_named_with_file_and_line(tmp_path, text, message):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(PipelineError, match=message):
        list(read_records(tmp_path))


def test_tables_hold_nested_values_as_structs_or_as_text(tmp_path):
    chunks = [{"chunk_id": 1, "text": "[x"}]
    plain = {"file_name": ["a.txt"], "chunks": chunks, "deduplicated_qa_pairs": [{"question": "q", "segment_ids": [1]}]}
    rows = [plain, {name: json.dumps(value) for name, value in plain.items()}, plain | {"file_name": "[a].txt"}]
    for number, row in enumerate(rows):
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{number}.parquet")
    found = list(read_records(tmp_path))
    assert [where.rpartition("/")[2] for where, _ in found] == [f"{number}.parquet: row 0" for number in range(3)]
    assert [item["chunks"] for _, item in found] == [chunks] * 3
    assert [item["file_name"] for _, item in found] == [["a.txt"], ["a.txt"], ["[a].txt"]]


def test_the_first_record_is_read_before_a_later_one_fails(tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps(record()) + "\n{broken\n")
    records = read_records(tmp_path)
    assert next(records)[1]["file_name"] == ["a.txt"]
    with pytest.raises(PipelineError, match=r"data.jsonl:2"):
        next(records)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "data.json").write_bytes(b"[\xff\xfe]")
    with pytest.raises(PipelineError, match=r"data.json: neither UTF-8 text nor parquet"):
        list(read_records(tmp_path))

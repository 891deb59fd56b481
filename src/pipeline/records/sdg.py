"""SDG records: `generated_batch<i>_<first>_<last>.json`, and every layout they were ever published in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sources.files import kind_of_file, records_of_table
from pipeline.run.files import read_json, write_json

Record = dict[str, Any]
BATCH = "generated_batch"
HANDOFF = "generation_result.json"
REQUIRED = ("file_name", "chunks", "deduplicated_qa_pairs")
_ENDINGS = (".json", ".jsonl", ".parquet", ".csv", ".tsv")
_BESIDE = (HANDOFF, "manifest.json", "usage.json", "rejected.jsonl", "coverage.jsonl", "funnel.json")
"""What a run of sdg writes beside its records."""


def batch_name(index: int, first: int, last: int) -> str:
    """File of records `first`..`last` (inclusive), the `index`-th file."""
    return f"{BATCH}{index}_{first}_{last}.json"


def write_batch(folder: Path, index: int, first: int, records: list[Record]) -> Path:
    return write_json(folder / batch_name(index, first, first + len(records) - 1), records)


def record_files(path: Path) -> list[Path]:
    """The files that hold records: `path` itself, or what a folder holds, in natural order.

    A folder with `generated_batch*` stands for these alone, one with a hand-off for the file that it names; else all
    its files of a known ending count.

    Raises:
        PipelineError: nothing is there, or a hand-off leads nowhere.
    """
    if path.is_file():
        return [_follow_handoff(path)] if path.name == HANDOFF else [path]
    if not path.is_dir():
        raise PipelineError(f"{path} does not exist", fix="run sdg first, or set sdg_input_path")
    found = data_files(path)
    if batches := [item for item in found if item.name.startswith(BATCH)]:
        return batches
    if (path / HANDOFF).is_file():
        return [_follow_handoff(path / HANDOFF)]
    if not found:
        raise PipelineError(
            f"{path} holds no records ({', '.join(f'*{ending}' for ending in _ENDINGS)})",
            fix="run sdg first, or set sdg_input_path",
        )
    return found


def data_files(folder: Path) -> list[Path]:
    """Every file of a folder that may hold data, in natural order: no hidden file, no manifest."""
    found = (item for item in folder.iterdir() if item.suffix.lower() in _ENDINGS and item.is_file())
    return sorted((item for item in found if not item.name.startswith(".") and item.name not in _BESIDE), key=_natural)


def is_record(value: Any) -> bool:
    """Whether a value was meant as a record of sdg, be it complete or not."""
    return isinstance(value, dict) and ("chunks" in value or "deduplicated_qa_pairs" in value)


def read_records(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield (where it stands, record) from a file or folder: JSON, JSON Lines or parquet, told by the content.

    One record after the other is held where the format allows it (JSON Lines, parquet).

    Raises:
        PipelineError: names file, line or item, and what is missing.
    """
    for file in record_files(path):
        yield from read_file(file)


def read_file(path: Path) -> Iterator[tuple[str, Record]]:
    """`read_records` of a single file."""
    for where, record in _items(path):
        if not isinstance(record, dict):
            raise PipelineError(f"{where}: a record must be an object, found {type(record).__name__}")
        missing = [name for name in REQUIRED if name not in record]
        if missing:
            raise PipelineError(f"{where}: the record lacks {', '.join(missing)}", fix="see docs/sdg.md, Output")
        for name in (*REQUIRED, "qa_evaluations"):
            record[name] = _parsed(record.get(name))
        names = [record["file_name"]] if isinstance(record["file_name"], str) else record["file_name"]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise PipelineError(f"{where}: file_name must be a name or a list of names, found {names!r:.80}")
        record["file_name"] = names
        yield where, record


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    kind = kind_of_file(path)
    if kind == "json":
        document = read_json(path)
        items = document if isinstance(document, list) else [document]
        for number in range(len(items)):
            item, items[number] = items[number], None  # what was read is let go
            yield f"{path}: record {number}", item
        return
    for number, item in records_of_table(path, kind):
        yield f"{path}: row {number}" if kind == "parquet" else f"{path}:{number}", item


def _parsed(value: Any) -> Any:
    """Tables hold nested values as JSON text in a column, or as structs."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _follow_handoff(path: Path) -> Path:
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema_version") != 1 or not isinstance(data.get("output_path"), str):
        raise PipelineError(f"{path}: needs schema_version 1 and output_path")
    target = Path(data["output_path"])
    target = target if target.is_absolute() else path.parent / target
    if not target.is_file():
        raise PipelineError(f"{path} points at {target}, which does not exist", fix="run sdg again")
    return target


def _natural(path: Path) -> list[Any]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

"""SDG records: `generated_batch<i>_<first>_<last>.json`, and every layout they were ever published in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.run.files import read_json, write_json

Record = dict[str, Any]
HANDOFF = "generation_result.json"


def batch_name(index: int, first: int, last: int) -> str:
    """File of records `first`..`last` (inclusive), the `index`-th file."""
    return f"generated_batch{index}_{first}_{last}.json"


def write_batch(folder: Path, index: int, first: int, records: list[Record]) -> Path:
    return write_json(folder / batch_name(index, first, first + len(records) - 1), records)


def record_files(path: Path) -> list[Path]:
    """The files that hold records: `path` itself, or what a folder holds, in natural order.

    A folder with `generated_batch*.json` stands for these alone; else all its .json and .jsonl files count.
    """
    if path.is_file():
        return [_follow_handoff(path)] if path.name == HANDOFF else [path]
    if not path.is_dir():
        raise PipelineError(f"{path} does not exist", fix="run sdg first, or set sdg_input_path")
    batches = sorted(path.glob("generated_batch*.json*"), key=_natural)
    found = batches or sorted(
        item
        for item in path.iterdir()
        if item.suffix in (".json", ".jsonl")
        and not item.name.startswith(".")
        and item.name not in (HANDOFF, "manifest.json", "usage.json")
    )
    if not found and (path / HANDOFF).is_file():
        return [_follow_handoff(path / HANDOFF)]
    if not found:
        raise PipelineError(f"{path} holds no records (*.json, *.jsonl)", fix="run sdg first, or set sdg_input_path")
    return found


def read_records(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield (where it stands, record) from a file or folder; JSON or JSON Lines is told by the content.

    Raises:
        PipelineError: names file, line or item, and what is missing.
    """
    for file in record_files(path):
        for where, record in _read_file(file):
            if not isinstance(record, dict):
                raise PipelineError(f"{where}: a record must be an object, found {type(record).__name__}")
            missing = [name for name in ("file_name", "chunks", "deduplicated_qa_pairs") if name not in record]
            if missing:
                raise PipelineError(f"{where}: the record lacks {', '.join(missing)}", fix="see docs/sdg.md, Output")
            names = [record["file_name"]] if isinstance(record["file_name"], str) else record["file_name"]
            if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
                raise PipelineError(f"{where}: file_name must be a name or a list of names, found {names!r}")
            record["file_name"] = names
            yield where, record


def _read_file(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 at byte {error.start}") from error
    try:
        document = json.loads(text)
    except json.JSONDecodeError as whole:
        yield from _read_lines(path, text, whole)
        return
    items = document if isinstance(document, list) else [document]
    for number, item in enumerate(items):
        yield f"{path}: record {number}", item


def _read_lines(path: Path, text: str, whole: json.JSONDecodeError) -> Iterator[tuple[str, Any]]:
    # Not splitlines(): strings of the records may hold U+2028 and other characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line)
        except json.JSONDecodeError as error:
            if number == 1:  # not JSON Lines either: the error of the whole file is the useful one
                raise PipelineError(f"{path}:{whole.lineno}: neither JSON nor JSON Lines: {whole.msg}") from error
            raise PipelineError(f"{path}:{number}: not valid JSON: {error.msg}") from error


def _follow_handoff(path: Path) -> Path:
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema_version") != 1 or not data.get("output_path"):
        raise PipelineError(f"{path}: needs schema_version 1 and output_path")
    target = Path(data["output_path"])
    target = target if target.is_absolute() else path.parent / target
    if not target.is_file():
        raise PipelineError(f"{path} points at {target}, which does not exist", fix="run sdg again")
    return target


def _natural(path: Path) -> list[Any]:
    import re

    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]

"""Records of a file, whatever its format; the content decides, not the ending."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sources.check import kind_of
from pipeline.records.sources.records import ACCEPTED, POSITIVE, QUESTION
from pipeline.run.files import read_jsonl

_HEADER = {*QUESTION, *POSITIVE, "pos_doc"}
_FORMATS = "accepted files: JSON, JSONL, CSV, TSV and parquet (not compressed)"
_BATCH = 1024


def kind_of_file(path: Path) -> str:
    """`json`, `jsonl`, `csv`, `tsv` or `parquet`, told by the file's content.

    Raises:
        PipelineError: the file cannot be read, is empty, or is none of these.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
            stream.seek(0)
            line = stream.readline()
            while line and not line.strip():
                line = stream.readline()
            more = any(other.strip() for other in stream) if _is_object(line) else False
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error
    if start == b"PAR1":
        return "parquet"
    if not line:
        raise PipelineError(f"{path} is empty", fix=_FORMATS)
    try:
        text = line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: neither UTF-8 text nor parquet ({error.reason})", fix=_FORMATS) from error
    if text.startswith(("{", "[")):
        return "jsonl" if more else "json"
    for delimiter, kind in (("\t", "tsv"), (",", "csv")):
        if {cell.strip().strip('"') for cell in text.split(delimiter)} & _HEADER:
            return kind
    raise PipelineError(f"{path}: no known format begins with {text[:80]!r}", fix=f"{_FORMATS}; {ACCEPTED}")


def _is_object(line: bytes) -> bool:
    """Whether the line is a whole JSON object: with more lines after it, the file is JSONL."""
    if not line.lstrip(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def records_of_table(path: Path, kind: str) -> Iterator[tuple[int, Any]]:
    """(line or row number, record) of a JSONL, CSV, TSV or parquet file, read in pieces."""
    if kind == "jsonl":
        return read_jsonl(path)
    return _parquet_records(path) if kind == "parquet" else _text_records(path, "\t" if kind == "tsv" else ",")


def names_a_corpus(document: Any) -> bool:
    """Whether a parsed file is `{"corpus": …, "data": […]}`; a row may have a field `corpus` too."""
    return isinstance(document, dict) and "corpus" in document and isinstance(document.get("data"), list)


def records_of_json(path: Path, document: Any) -> list[tuple[int, Any]]:
    """A list of records, `{"data": […]}`, or one record, which may have a field `data` too."""
    if isinstance(document, dict):
        held = document.get("data")
        document = held if isinstance(held, list) else [document]
    if not isinstance(document, list):
        raise PipelineError(f"{path}: rows are a list or an object, found {kind_of(document)}", fix=ACCEPTED)
    return list(enumerate(document))


def _text_records(path: Path, delimiter: str) -> Iterator[tuple[int, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            if len(set(names)) < len(names):
                raise PipelineError(f"{path}:1: a column name stands there twice: {', '.join(names)}")
            reader.fieldnames = names
            for record in reader:
                if None in record or None in record.values():
                    raise PipelineError(
                        f"{path}:{reader.line_num}: another number of cells than the {len(names)} columns"
                    )
                yield reader.line_num, record
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise PipelineError(f"{path}:{reader.line_num}: not a valid table: {error}") from error


def _parquet_records(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                batch.validate(full=True)
                for record in batch.to_pylist():
                    yield number, record
                    number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PipelineError(f"{path}: not readable as parquet after row {number}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

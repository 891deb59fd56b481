"""JSONL, CSV and TSV files: every row a document, with its own id and title where there are such columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline_sdg.reading.document import Document, Failure, Found, Unreadable
from pipeline_sdg.reading.encoding import encoding_of_file

ID_COLUMNS = ("_id", "id", "doc_id")
TEXT_COLUMNS = ("text", "content", "body", "passage")
TITLE_COLUMN = "title"
_LONGEST_CELL = 1 << 30
_SHOWN_COLUMNS = 10

Row = dict[str, Any]


def table_documents(path: Path, name: str, text_column: str | None) -> Iterator[Found | Failure]:
    """The rows of a table, read one by one; `name` is the file's path in the corpus.

    Row `name#id` is one without an id column `name#number`, from 1. A row that cannot be used is a `Failure` of its
    own and the others are read on.

    Args:
        text_column: the column with the text; None takes the first of `TEXT_COLUMNS` that the row has.

    Raises:
        Unreadable: the file as a whole is no such table.
    """
    encoding, guessed = encoding_of_file(path)
    rows = _json_rows(path, encoding) if path.suffix.lower() == ".jsonl" else _csv_rows(path, encoding, text_column)
    seen: set[str] = set()
    for number, row in rows:
        if isinstance(row, str):
            yield Failure(f"{name}#{number}", row)
            continue
        try:
            document = _document(name, number, row, text_column)
        except Unreadable as reason:
            yield Failure(f"{name}#{number}", str(reason))
            continue
        if document.own_id in seen:
            yield Failure(f"{name}#{number}", f"id {document.own_id!r} stands there twice")
            continue
        seen.add(document.own_id)
        yield Found(document, guessed)
        guessed = ""  # said once for a file


def _document(name: str, number: int, row: Row, text_column: str | None) -> Document:
    """Raises `Unreadable` when the row has no text."""
    column = text_column or next((key for key in TEXT_COLUMNS if key in row), None)
    if column is None or column not in row:
        raise Unreadable(_no_column(text_column, list(row)))
    text, title = row[column], row.get(TITLE_COLUMN) or ""
    if not isinstance(text, str):
        raise Unreadable(f"{column} must be text, found {_shown(text)}")
    if not isinstance(title, str):
        raise Unreadable(f"{TITLE_COLUMN} must be text, found {_shown(title)}")
    own = next((row[key] for key in ID_COLUMNS if row.get(key) not in (None, "")), number)
    if isinstance(own, bool) or not isinstance(own, str | int):
        raise Unreadable(f"the id must be text or a whole number, found {_shown(own)}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise Unreadable(f"{column} has NUL characters")
    return Document(f"{name}#{own}", text, " ".join(title.split()), str(own))


def _no_column(text_column: str | None, columns: list[str]) -> str:
    wanted = f"column {text_column}" if text_column else f"text column ({', '.join(TEXT_COLUMNS)})"
    there = ", ".join(str(column) for column in columns[:_SHOWN_COLUMNS]) or "none"
    return f"no {wanted}; columns there: {there}; set text_column to the right one"


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"


def _json_rows(path: Path, encoding: str) -> Iterator[tuple[int, Row | str]]:
    """(line number, object, or what is wrong with the line)."""
    for number, line in _lines(path, encoding):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # a lone surrogate is valid JSON, but no text
        except (ValueError, RecursionError) as error:
            yield number, f"not a JSON object: {error}"
            continue
        yield number, row if isinstance(row, dict) else f"not a JSON object but {_shown(row)}"


def _csv_rows(path: Path, encoding: str, text_column: str | None) -> Iterator[tuple[int, Row | str]]:
    """(row number, row, or what is wrong with it); the delimiter is a tab, or the one the header shows most."""
    csv.field_size_limit(_LONGEST_CELL)  # a cell is a document here: the default of 128 KiB is too small
    lines = (line for _, line in _lines(path, encoding, newline=""))
    header = next(lines, "")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=header.count)
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    if len(set(names)) < len(names):
        raise Unreadable(f"a column name stands there twice: {', '.join(names)}")
    if not set(names) & ({text_column} if text_column else set(TEXT_COLUMNS)):
        raise Unreadable(_no_column(text_column, names))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, f"not a valid row: {error}"
            continue
        if not cells:
            number -= 1
        elif len(cells) != len(names):
            yield number, f"{len(cells)} cells, but the header has {len(names)} columns"
        else:
            yield number, dict(zip(names, cells, strict=True))


def _lines(path: Path, encoding: str, newline: str = "\n") -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding=encoding, newline=newline) as stream:
            yield from enumerate(stream, 1)
    except UnicodeDecodeError as error:  # a guess from the first megabyte that does not hold
        raise Unreadable(f"not {encoding} text: {error.reason} at byte {error.start}") from error

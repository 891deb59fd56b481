"""Documents by path, in any order: what bundles of documents that are not neighbours need."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from types import TracebackType

from pipeline.errors import PipelineError
from pipeline_sdg.reading.document import Document, Found
from pipeline_sdg.reading.files import read_file


class Lookup:
    """Reads one document at a time. A table is read once, into a temporary database that is gone with the process."""

    def __init__(self, folder: Path, text_column: str | None) -> None:
        self._folder, self._text_column = folder, text_column
        self._rows = sqlite3.connect("")  # an empty name: on disk, without a file that could be left over
        self._rows.execute("CREATE TABLE documents (path TEXT PRIMARY KEY, text TEXT, title TEXT, own_id TEXT)")
        self._tables: set[str] = set()

    def __enter__(self) -> Lookup:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._rows.close()

    def read(self, path: str) -> Document:
        """The document that a survey lists under `path`.

        Raises:
            PipelineError: it is no longer there.
        """
        if (self._folder / path).is_file():
            found = next(read_file(self._folder, path, self._text_column), None)
            if isinstance(found, Found) and found.document.path == path:
                return found.document
        elif (row := self._row(path)) is not None:
            return row
        raise PipelineError(
            f"{self._folder / path}: cannot be read any more", fix="the corpus changed during the run: start it again"
        )

    def _row(self, path: str) -> Document | None:
        pieces = path.split("#")
        names = ("#".join(pieces[:count]) for count in range(1, len(pieces)))  # ids and names may have a # themselves
        for name in names:
            if name not in self._tables and (self._folder / name).is_file():
                self._tables.add(name)
                self._rows.executemany("INSERT INTO documents VALUES (?, ?, ?, ?)", self._table(name))
        row = self._rows.execute("SELECT path, text, title, own_id FROM documents WHERE path = ?", (path,)).fetchone()
        return Document(*row) if row else None

    def _table(self, name: str) -> Iterator[tuple[str, str, str, str]]:
        for item in read_file(self._folder, name, self._text_column):
            if isinstance(item, Found):
                yield astuple(item.document)

"""Values on disk instead of in memory: what a run over a large corpus keeps between its steps.

The files have no name: nobody sees them, and nothing is left behind however the process ends. What must outlive it is
in the journal.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline_sdg.vectors import unnamed_file

_NOTHING = -1


class Spool:
    """JSON values in the order in which they were appended, by their number."""

    def __init__(self, folder: Path) -> None:
        self._file = unnamed_file(folder)
        self._ends = array("q", [0])
        self._unflushed = False

    def append(self, value: Any) -> int:
        """The number of `value`, from 0."""
        data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        self._unflushed = True
        return len(self) - 1

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        if self._unflushed:
            self._file.flush()
            self._unflushed = False
        start, end = self._ends[number], self._ends[number + 1]
        return json.loads(os.pread(self._file.fileno(), end - start, start).decode("utf-8", "surrogatepass"))

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))


class Slots:
    """A value for each of `size` numbers, set in any order; the last one set counts."""

    def __init__(self, folder: Path, size: int) -> None:
        self._spool = Spool(folder)
        self._places = array("q", [_NOTHING]) * size

    def __len__(self) -> int:
        return len(self._places)

    def __setitem__(self, number: int, value: Any) -> None:
        self._places[number] = self._spool.append(value)

    def __getitem__(self, number: int) -> Any:
        """None where nothing was set."""
        place = self._places[number]
        return None if place == _NOTHING else self._spool[place]

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

"""Lists of whole numbers of different lengths in two arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Row `i` is `values[offsets[i] : offsets[i + 1]]`.

    Attributes:
        offsets: int64 [n + 1], the first is 0.
        values: int64 [offsets[-1]].
    """

    offsets: np.ndarray
    values: np.ndarray

    @classmethod
    def of_counts(cls, counts: np.ndarray, values: np.ndarray) -> Ragged:
        """From the length of each row and all rows' values one after the other."""
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        return cls(offsets, np.asarray(values, np.int64))

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        """From a list for each row."""
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        return cls.of_counts(counts, np.fromiter(chain.from_iterable(rows), np.int64, counts.sum()))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def counts(self) -> np.ndarray:
        """int64 [n]: values in each row."""
        return np.diff(self.offsets)

    @property
    def row_numbers(self) -> np.ndarray:
        """int64 [len(values)]: the row that each value stands in."""
        return np.repeat(np.arange(len(self)), self.counts)

    def positions(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the values of `rows` stand: (place in `rows`, place in `values`), both int64, row after row."""
        counts = self.offsets[rows + 1] - self.offsets[rows]
        places = np.repeat(np.arange(len(rows)), counts)
        first = np.cumsum(counts) - counts
        return places, np.arange(len(places)) - np.repeat(first, counts) + np.repeat(self.offsets[rows], counts)

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values of `rows` in one array: (place in `rows` of each value, the values), both int64."""
        places, positions = self.positions(rows)
        return places, self.values[positions]

    def rows(self, rows: np.ndarray) -> Ragged:
        """These rows alone, in this order."""
        places, values = self.take(rows)
        return Ragged.of_counts(np.bincount(places, minlength=len(rows)), values)

    def keep(self, mask: np.ndarray) -> Ragged:
        """The values where `mask` (bool [len(values)]) is True; every row stays, perhaps empty."""
        return Ragged.of_counts(np.bincount(self.row_numbers[mask], minlength=len(self)), self.values[mask])

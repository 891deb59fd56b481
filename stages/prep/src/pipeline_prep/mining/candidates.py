"""Possible negatives as flat arrays: every pair of a row and a passage once, rows ascending, best first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline_prep.mining.task import SOURCES


@dataclass(frozen=True)
class Candidates:
    """row, passage: int64 [P]. score: fp32 [P]. source: uint8 [P], a place in `SOURCES`."""

    row: np.ndarray
    passage: np.ndarray
    score: np.ndarray
    source: np.ndarray

    @classmethod
    def of(cls, row: np.ndarray, passage: np.ndarray, score: np.ndarray, source: str) -> Candidates:
        return cls(row, passage, score.astype(np.float32), np.full(len(row), SOURCES.index(source), np.uint8))

    @classmethod
    def none(cls) -> Candidates:
        empty = np.empty(0, np.int64)
        return cls.of(empty, empty, np.empty(0), SOURCES[0])

    def __len__(self) -> int:
        return len(self.row)

    def at(self, places: np.ndarray) -> Candidates:
        return Candidates(self.row[places], self.passage[places], self.score[places], self.source[places])

    def keep(self, mask: np.ndarray) -> Candidates:
        return self.at(np.flatnonzero(mask))

    def then(self, other: Candidates) -> Candidates:
        """Both, row by row; within a row these before the other's."""
        pairs = zip(
            (self.row, self.passage, self.score, self.source),
            (other.row, other.passage, other.score, other.source),
            strict=True,
        )
        both = Candidates(*(np.concatenate(pair) for pair in pairs))
        return both.at(np.argsort(both.row, kind="stable"))

    def distinct(self) -> Candidates:
        """Each (row, passage) where it stands first."""
        first = np.unique(self._keys(self._base()), return_index=True)[1]
        return self.at(np.sort(first))

    def without(self, other: Candidates) -> Candidates:
        base = max(self._base(), other._base())
        return self.keep(~np.isin(self._keys(base), other._keys(base)))

    def hardest_first(self) -> Candidates:
        """Rows ascending, scores descending, then passages ascending."""
        return self.at(np.lexsort((self.passage, -self.score, self.row)))

    def shuffled(self, draws: Callable[[int], np.random.Generator]) -> Candidates:
        """Each row's candidates in an order that `draws(row)` makes."""
        if not len(self):
            return self
        rows, starts = np.unique(self.row, return_index=True)
        parts = np.split(np.arange(len(self)), starts[1:])
        return self.at(
            np.concatenate([draws(int(row)).permutation(part) for row, part in zip(rows, parts, strict=True)])
        )

    def _base(self) -> int:
        return int(self.passage.max(initial=0)) + 1

    def _keys(self, base: int) -> np.ndarray:
        return self.row * base + self.passage


def take_first(candidates: Candidates, count: int) -> tuple[Candidates, Candidates]:
    """The first `count` of each row, and the others."""
    rank = rank_in_row(candidates.row)
    return candidates.keep(rank < count), candidates.keep(rank >= count)


def rank_in_row(row: np.ndarray) -> np.ndarray:
    """0, 1, … for the pairs of each row; `row` is ascending."""
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    return np.arange(len(row)) - np.repeat(starts, np.diff(np.append(starts, len(row))))

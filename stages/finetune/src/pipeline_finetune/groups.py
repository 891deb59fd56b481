"""The rows of one step as a set of distinct texts and a table of who competes with whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline_finetune.data import MISSING, RowTable


@dataclass(frozen=True)
class Group:
    """Rows that are scored together. Each distinct passage is one column, however many rows name it.

    Attributes:
        rows: int64 [B], row numbers. passages: int64 [P], passage indices of the columns.
        positive: int64 [B], column of each row's positive.
        candidates: bool [B, P], True where the passage competes for the row's query.
        own: bool [B, P], True where the row itself names the passage, as its positive or as a negative.
        teacher: fp32 [B, P], the teacher's scores, NaN where unknown; None if the table has none.
    """

    rows: np.ndarray
    passages: np.ndarray
    positive: np.ndarray
    candidates: np.ndarray
    own: np.ndarray
    teacher: np.ndarray | None = None


def make_group(table: RowTable, rows: np.ndarray, *, in_batch_negatives: bool) -> Group:
    """Gather the distinct passages of `rows`, ascending.

    With in-batch negatives every passage competes except those known to answer the query (the same document under
    another row, sibling positives, positives of other rows that ask the same); without, a row's own negatives alone.
    """
    named = _named(table, rows)
    return _group(table, rows, np.unique(named[named != MISSING]), in_batch_negatives=in_batch_negatives)


def merge_ranks(table: RowTable, rows: np.ndarray, gathered: Sequence[np.ndarray]) -> Group:
    """The group of this process when the passages of all processes compete (in-batch negatives across ranks).

    The columns are the gathered passages, rank after rank. A passage that several ranks encoded counts once: its first
    column competes (and is the positive's column where it is a row's positive), the others never do. So the mean over
    ranks of their losses, weighted by rows, is the loss of one process with the rows of all.

    Args:
        table: the rows of all ranks; every rank reads the same one.
        rows: int64 [B], rows of this rank.
        gathered: int64 [P_r] for each rank in order, the `passages` of the rank's own group.
    """
    return _group(table, rows, np.concatenate(gathered), in_batch_negatives=True)


def _group(table: RowTable, rows: np.ndarray, passages: np.ndarray, *, in_batch_negatives: bool) -> Group:
    columns = _Columns(passages)
    named = _named(table, rows)
    row, place = np.nonzero(named != MISSING)
    column = columns.of(named[row, place])
    own = np.zeros((len(rows), len(passages)), bool)
    own[row, column] = True
    positive = columns.of(named[:, 0])
    if in_batch_negatives:
        candidates = np.tile(columns.first, (len(rows), 1))
        number, known = table.known.take(rows)
        found = columns.holds(known)
        candidates[number[found], columns.of(known[found])] = False
        candidates[np.arange(len(rows)), positive] = True
    else:
        candidates = own.copy()
    teacher = None
    if table.teacher is not None:
        teacher = np.full(own.shape, np.nan, np.float32)
        teacher[row, column] = table.teacher[rows][row, place]
    return Group(rows, passages, positive, candidates, own, teacher)


def _named(table: RowTable, rows: np.ndarray) -> np.ndarray:
    """Passages that each row names, its positive first: int64 [B, n_passages], `MISSING` where there are fewer."""
    return np.concatenate([table.positive[rows, None], table.negatives[rows]], axis=1)


class _Columns:
    """Where passages stand in a list that may name one several times.

    `first` (bool [P]) is True at the first column of each passage.
    """

    def __init__(self, passages: np.ndarray) -> None:
        self._distinct, self._first = np.unique(passages, return_index=True)
        self.first = np.zeros(len(passages), bool)
        self.first[self._first] = True

    def of(self, passages: np.ndarray) -> np.ndarray:
        """First column of each passage, all of which are in the list."""
        return self._first[np.searchsorted(self._distinct, passages)]

    def holds(self, passages: np.ndarray) -> np.ndarray:
        """Which of the passages are in the list: bool, their shape."""
        return np.isin(passages, self._distinct)

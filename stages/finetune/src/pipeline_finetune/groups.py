"""The rows of one step as a set of distinct texts and a table of who competes with whom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline_finetune.data import MISSING, RowTable


@dataclass(frozen=True)
class Group:
    """Rows that are encoded together. Each distinct passage is one column, however many rows name it.

    Attributes:
        rows: int64 [B], row numbers. passages: int64 [P], distinct passage indices, ascending.
        positive: int64 [B], column of each row's positive.
        candidates: bool [B, P], True where the passage competes for the row's query.
    """

    rows: np.ndarray
    passages: np.ndarray
    positive: np.ndarray
    candidates: np.ndarray


def make_group(table: RowTable, rows: np.ndarray, *, in_batch_negatives: bool) -> Group:
    """Gather the distinct passages of `rows`.

    With in-batch negatives every passage competes except those known to answer the query (the same document under
    another row, sibling positives); without, a row's own negatives alone.
    """
    own = table.negatives[rows]
    named = np.concatenate([table.positive[rows], own.ravel()])
    passages = np.unique(named[named != MISSING])
    positive = np.searchsorted(passages, table.positive[rows])
    candidates = np.full((len(rows), len(passages)), in_batch_negatives)
    for number, row in enumerate(rows):
        if in_batch_negatives:
            candidates[number, np.isin(passages, table.known[row])] = False
        else:
            candidates[number, np.searchsorted(passages, own[number][own[number] != MISSING])] = True
    candidates[np.arange(len(rows)), positive] = True
    return Group(rows, passages, positive, candidates)

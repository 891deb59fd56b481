"""The passages of rows as plain lists, some rows at a time: a file of millions of rows is never held as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.records.sources.ragged import Ragged

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 1024


def references(
    items: Ragged, scores: np.ndarray, passages: pa.Table, columns: Sequence[str]
) -> Iterator[list[dict[str, Any]]]:
    """Row after row its passages: the given columns, and `score` where one is known.

    Args:
        scores: fp32 [len(items.values)], NaN where unknown.
    """
    import pyarrow as pa

    table = passages.select(columns).combine_chunks()
    for start in range(0, len(items), _ROWS):
        block = items.rows(np.arange(start, min(start + _ROWS, len(items))))
        found = table.take(pa.array(block.values)).to_pylist()
        for place, passage in enumerate(found):
            passage |= score_of(scores[items.offsets[start] + place])
        for row in range(len(block)):
            yield found[block.offsets[row] : block.offsets[row + 1]]


def score_of(score: np.float32) -> dict[str, float]:
    """{"score": …}, the shortest number that is the same in fp32; nothing where the score is unknown."""
    return {} if np.isnan(score) else {"score": float(str(score))}

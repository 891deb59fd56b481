"""What every reply is checked for before it is used: all of it there, each in its place, nothing but finite numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def in_order(items: Sequence[dict[str, Any]], value: str, count: int) -> list[Any]:
    """`item[value]` of every item in the order of their `index`, which must be 0 … count - 1, each once.

    Raises:
        ValueError: an index is missing, there twice, or beyond the request. KeyError, TypeError: no such items.
    """
    indices = [item["index"] for item in items]
    if sorted(indices) != list(range(count)):
        raise ValueError(f"{count} texts sent, but the indices are {indices[:5]}… ({len(indices)})")
    by_index = {item["index"]: item[value] for item in items}
    return [by_index[index] for index in range(count)]


def vectors(rows: Any, count: int) -> np.ndarray:
    """Embeddings of `count` texts: fp32 [count, dimension].

    Raises:
        ValueError: too few or too many, not all of one length, or something that is no finite number.
    """
    found = _numbers(rows, count)
    if found.ndim != 2 or not found.shape[1]:
        raise ValueError("an embedding is not a list of numbers")
    return found


def scores(values: Any, count: int) -> np.ndarray:
    """Scores of `count` passages: fp32 [count].

    Raises:
        ValueError: too few or too many, or something that is no finite number.
    """
    found = _numbers(values, count)
    if found.ndim != 1:
        raise ValueError("a score is not a number")
    return found


def in_place(batches: Sequence[Sequence[int]], parts: Sequence[np.ndarray]) -> np.ndarray:
    """The results of all batches, each where its text was: fp32 [texts, …]. Batches are the numbers of their texts."""
    shape = parts[0].shape[1:] if parts else ()
    found = np.empty((sum(map(len, batches)), *shape), np.float32)
    for batch, part in zip(batches, parts, strict=True):
        found[batch] = part
    return found


def _numbers(values: Any, count: int) -> np.ndarray:
    if not isinstance(values, list) or len(values) != count:
        got = f"{len(values)} results" if isinstance(values, list) else "no list"
        raise ValueError(f"{got} for {count} texts")
    raw = np.array(values)  # lists of different lengths: ValueError
    if raw.dtype.kind not in "iuf":  # a null or a huge number gives objects, a text gives texts
        raise ValueError("something in it is not a number")
    with np.errstate(over="ignore"):
        found = raw.astype(np.float32)
    finite = np.isfinite(found).reshape(count, -1).all(1)
    if not finite.all():
        raise ValueError(f"the result of text {int(np.flatnonzero(~finite)[0])} of the batch holds NaN or infinity")
    return found

"""Vectors to search among, wherever they lie: given out block by block, never as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np


class Passages(Protocol):
    """`len()` vectors of `dimension` numbers each; passage `i` is the i-th as its owner counts."""

    @property
    def dimension(self) -> int: ...

    def __len__(self) -> int: ...

    def blocks(self, size: int, first: int = 0, step: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Passage numbers (int64 [n]) and vectors [n, dimension], n <= size; each passage once over all blocks.

        Of all blocks, which are the same in every process with the same vectors, those number first, first + step, …
        """
        ...

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Vectors of these passages, fp32 [len(numbers), dimension]."""
        ...


class ArrayPassages:
    """Vectors in one array [N, D], in memory or memory-mapped."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    @property
    def dimension(self) -> int:
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    def blocks(self, size: int, first: int = 0, step: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(first * size, len(self.vectors), step * size):
            part = self.vectors[start : start + size]
            yield np.arange(start, start + len(part)), part

    def take(self, numbers: np.ndarray) -> np.ndarray:
        return np.asarray(self.vectors[numbers], np.float32)

"""Token ids of many texts in a memory-mapped file: written in chunks, shared by every process that opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from pipeline.records.sources.ragged import Ragged

__all__ = ["CHUNK", "Ragged", "TokenTable", "Tokenize", "write_tokens"]

CHUNK = 8192

Tokenize = Callable[[Sequence[str]], Iterable[Sequence[int]]]
"""Token ids of each text, special tokens included, not padded."""


class TokenTable:
    """Text `i` is `tokens[offsets[i] : offsets[i + 1]]`.

    Attributes:
        tokens: int32, memory-mapped where the table was opened from a file.
        offsets: int64 [n + 1].
        lengths: int64 [n], tokens of each text.
    """

    def __init__(self, tokens: np.ndarray, offsets: np.ndarray) -> None:
        self.tokens, self.offsets = tokens, offsets
        self.lengths = np.diff(offsets)

    @classmethod
    def of(cls, texts: Sequence[str], tokenize: Tokenize) -> TokenTable:
        """A table in memory, for few texts."""
        items = [np.asarray(ids, np.int32) for ids in tokenize(texts)] if texts else []
        offsets = np.cumsum([0, *map(len, items)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, np.int32), *items]), offsets)

    @classmethod
    def open(cls, folder: Path, name: str) -> TokenTable:
        """The table that `write_tokens` put there; its tokens stay on disk until they are used."""
        path = folder / f"{name}.tokens"
        empty = path.stat().st_size == 0  # which cannot be mapped
        tokens = np.empty(0, np.int32) if empty else np.memmap(path, np.int32, mode="r")
        return cls(tokens, np.load(folder / f"{name}.offsets.npy", mmap_mode="r"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def write_tokens(folder: Path, name: str, items: Iterable[Iterable[Sequence[int]]]) -> TokenTable:
    """Write a table chunk by chunk and open it.

    Args:
        items: chunks of token ids; no more than one chunk is held at a time.
    """
    lengths: list[np.ndarray] = [np.zeros(1, np.int64)]
    with (folder / f"{name}.tokens").open("wb") as stream:
        for chunk in items:
            arrays = [np.asarray(ids, np.int32) for ids in chunk]
            lengths.append(np.array([len(ids) for ids in arrays], np.int64))
            stream.write(b"".join(ids.tobytes() for ids in arrays))
    np.save(folder / f"{name}.offsets.npy", np.cumsum(np.concatenate(lengths)))
    return TokenTable.open(folder, name)

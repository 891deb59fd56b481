"""Vectors of any number of texts, made batch by batch and kept on disk, not in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from pipeline.errors import PipelineError

EMBEDDED_AT_ONCE = 512

Embed = Callable[[list[str], Literal["query", "passage"]], Awaitable[np.ndarray]]
"""Texts and what they are -> vectors (n, dimension) float32: an endpoint's, or a local encoder's."""


async def embedded(texts: Iterable[str], kind: Literal["query", "passage"], embed: Embed, folder: Path) -> np.ndarray:
    """One vector for each text, in order: fp32 [N, D], memory-mapped from a file that vanishes with the process.

    Raises:
        PipelineError: the vectors are not all of one length.
    """
    stream = unnamed_file(folder)
    count = dimension = 0
    waiting = iter(texts)
    while batch := list(islice(waiting, EMBEDDED_AT_ONCE)):
        vectors = await embed(batch, kind)
        if dimension not in (0, vectors.shape[1]):
            raise PipelineError(
                f"the embedding model gave vectors of {dimension} and of {vectors.shape[1]} numbers",
                fix="is one model behind that address? see embed_model; or set embed_model=null and pooled_judging=0",
            )
        count, dimension = count + len(vectors), vectors.shape[1]
        stream.write(np.ascontiguousarray(vectors, "<f4").tobytes())
    stream.flush()
    return np.memmap(stream, "<f4", "r", shape=(count, dimension)) if count else np.empty((0, 0), np.float32)


def unnamed_file(folder: Path) -> BinaryIO:
    """A file in `folder` that nobody sees and nothing leaves behind, kill -9 included."""
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)  # type: ignore[return-value]

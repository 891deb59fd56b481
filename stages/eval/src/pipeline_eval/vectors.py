"""Passage vectors of one corpus, and exact search among them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.records.results import Facts
from pipeline.retrieval.passages import Passages
from pipeline.retrieval.search import nearest
from pipeline.retrieval.world import World
from pipeline_eval.metrics import Run

Encode = Callable[[Sequence[str]], np.ndarray]
"""Raw questions -> vectors fp32 [questions, dimension]."""


class VectorIndex:
    """Vectors of all passages, in the order of `ids`, searched block by block."""

    def __init__(
        self,
        ids: list[str],
        vectors: np.ndarray | Passages,
        encode: Encode,
        *,
        passage_block: int,
        device: torch.device | str,
        world: World | None = None,
        facts: Facts | None = None,
    ) -> None:
        self._ids, self.vectors, self.encode = ids, vectors, encode
        self.facts = facts or Facts()
        self._block, self._device, self._world = passage_block, device, world

    def search(self, queries: dict[str, str], k: int) -> Run:
        """The `k` passages with the largest dot product for each question, all of the corpus considered."""
        vectors = self.encode(list(queries.values()))
        found = nearest(vectors, self.vectors, k, passage_block=self._block, device=self._device, world=self._world)
        return {
            query: {self._ids[place]: float(score) for place, score in zip(row, values, strict=True)}
            for query, row, values in zip(queries, found.indices, found.scores, strict=True)
        }

    def made_into(
        self, encode: Encode, vectors: np.ndarray | Passages | None = None, facts: Facts | None = None
    ) -> VectorIndex:
        """The same passages with other questions' vectors, and other vectors of their own."""
        return VectorIndex(
            self._ids,
            self.vectors if vectors is None else vectors,
            encode,
            passage_block=self._block,
            device=self._device,
            world=self._world,
            facts=facts or self.facts,
        )


def stored(parts: Iterator[np.ndarray], rows: int, folder: Path) -> np.ndarray:
    """Put parts one below the other: fp32 [rows, dimension], backed by a file in `folder` that has no name.

    Memory stays bounded however large the corpus is, and the operating system frees the file however the process ends.

    Raises:
        PipelineError: a vector holds NaN or infinity.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole: np.ndarray | None = None
    done = 0
    for part in parts:
        if not np.isfinite(part).all():
            raise PipelineError(
                "the model gives vectors that are not finite numbers",
                fix="its training failed, or its weights are damaged: make the model again",
            )
        if whole is None:
            with tempfile.TemporaryFile(dir=folder) as file:
                whole = np.memmap(file, dtype=np.float32, mode="w+", shape=(rows, part.shape[1]))
        whole[done : done + len(part)] = part
        done += len(part)
    if whole is None or done != rows:
        raise ValueError(f"{done} vectors for {rows} passages")
    return whole

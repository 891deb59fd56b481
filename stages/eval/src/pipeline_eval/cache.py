"""The vectors of earlier runs, kept within bounds."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.retrieval.vector_cache import clock, prune

logger = logging.getLogger("pipeline")
_GB = 1e9


class VectorCache:
    """`cache_embeddings_dir` from the begin of a run to its end: what the run used is never deleted."""

    def __init__(self, folder: str, most_gb: float) -> None:
        self._folder, self._most = Path(folder).expanduser(), most_gb * _GB
        self._begun = clock(self._folder) if self._folder.is_dir() else 0

    def tidy(self) -> None:
        """Delete what this run did not use, the longest unused first, while the folder is too large."""
        if not self._folder.is_dir():
            return
        done = prune(self._folder, self._most, self._begun)
        if done is None:
            logger.info(f"{self._folder} is in use by another run: nothing is deleted from it")
        elif done.shards:
            logger.info(
                f"{self._folder}: {done.shards:,} shards of vectors deleted that were not used lately "
                f"({done.freed / _GB:.2f} GB; cache_max_gb={self._most / _GB:g}), {done.left / _GB:.2f} GB are left"
            )

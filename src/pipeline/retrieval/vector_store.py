"""Vectors kept on disk between runs, found again by what was encoded and how.

`<folder>/<key>/<kind>/<shard>/` holds `texts.npy` (a hash of each formatted text) and `vectors.npy`, memory-mapped when
read. The key stands for weights, tokenizer and contract. A vector is used again exactly when key and text are equal:
changing the model, the prefix, a length or the text leads elsewhere. A shard appears whole or not at all, so an
interrupted run goes on with the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.assets import model_content
from pipeline.errors import PipelineError
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.vector_cache import in_use, mark_used
from pipeline.run.files import write_json

_TEXTS, _VECTORS, _KEY = "texts.npy", "vectors.npy", "key.json"
_HALF = ".shard-"
_ABANDONED_AFTER = 3600
"""Seconds. A shard is written in one."""
_HASH = np.dtype("S16")

Texts = Callable[[np.ndarray], list[str]]
"""Formatted texts by number (int64 [n])."""


def store_key(encoder: BiEncoder, reference: str, revision: str | None) -> dict[str, str | None]:
    """What vectors depend on beside the text. A hub model counts by the commit that was loaded."""
    commit = getattr(encoder.model.config, "_commit_hash", None)
    # A name moves no vector, and prefixes are part of the texts: another one for questions leaves passages alone.
    contract = encoder.contract.with_(base_model="", revision=None, query_prefix="", passage_prefix="")
    return {
        "model": model_content(reference, commit or revision),
        "contract": contract.digest(),
        "tokenizer": encoder.contract.tokenizer_hash,
        "dtype": encoder.contract.dtype,
    }


class VectorStore:
    """The vectors of one key. `kind` is "query" or "passage".

    fp16 for vectors of length one (an error of 2**-12 of each number), fp32 for others, whose size has no bound.
    """

    def __init__(self, folder: Path, key: dict[str, str | None], normalized: bool) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / digest
        self.key = key
        self.dtype = np.dtype(np.float16 if normalized else np.float32)

    def open(self, kind: str, hashes: np.ndarray) -> StoredPassages:
        """The vectors of these texts (`hashes_of`), numbered in this order.

        Raises:
            KeyError: some have not been encoded.
        """
        shards = self._shards(kind)
        shard, row = self._places(shards, hashes)
        if (shard < 0).any():
            raise KeyError(f"{int((shard < 0).sum())} texts are not in {self.folder / kind}")
        mark_used([shards[number] for number in np.unique(shard)])
        return StoredPassages([np.load(path / _VECTORS, mmap_mode="r") for path in shards], shard, row)

    def missing(self, kind: str, hashes: np.ndarray) -> np.ndarray:
        """bool [n]: has no vector yet."""
        return self._places(self._shards(kind), hashes)[0] < 0

    def add(self, kind: str, hashes: np.ndarray, vectors: np.ndarray) -> None:
        """Keep one shard: vectors [n, D] of the texts with these hashes.

        Raises:
            PipelineError: a number does not fit into the type that vectors are kept in.
        """
        with np.errstate(over="ignore"):
            kept = vectors.astype(self.dtype)
        if not np.isfinite(kept).all():
            raise PipelineError("a vector holds numbers that are not finite", fix="look at the model: it is damaged")
        place = self.folder / kind
        place.mkdir(parents=True, exist_ok=True)
        if not (self.folder / _KEY).exists():
            write_json(self.folder / "key.json", self.key)
        temporary = Path(tempfile.mkdtemp(prefix=_HALF, dir=place))
        try:
            for name, values in ((_VECTORS, kept), (_TEXTS, hashes)):
                with (temporary / name).open("wb") as stream:
                    np.save(stream, values)
                    stream.flush()
                    os.fsync(stream.fileno())
            _put_in_place(temporary, place / hashlib.sha256(hashes.tobytes()).hexdigest()[:16])
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def publish(self, shared: VectorStore) -> None:
        """Move every shard to `shared`, which has the same key, and leave nothing behind."""
        with in_use(shared.folder.parent):
            for shard in [path for kind in self.folder.iterdir() if kind.is_dir() for path in kind.iterdir()]:
                target = shared.folder / shard.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                if not shard.name.startswith("."):
                    _put_in_place(shard, target)
            if not (shared.folder / _KEY).exists():
                write_json(shared.folder / _KEY, self.key)
        shutil.rmtree(self.folder.parent)

    def sweep(self) -> None:
        """Delete what killed processes left half-written long ago; a younger one another run may be writing."""
        for leftover in self.folder.glob(f"*/{_HALF}*"):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER:
                shutil.rmtree(leftover, ignore_errors=True)

    def _shards(self, kind: str) -> list[Path]:
        place = self.folder / kind
        found = sorted(item for item in place.iterdir() if not item.name.startswith(".")) if place.is_dir() else []
        return [path for path in found if _is_whole(path)]

    def _places(self, shards: list[Path], hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(shard, row) of each text, int32 and int64; -1 where there is none."""
        held = [np.load(path / _TEXTS) for path in shards]
        shard, row = np.full(len(hashes), -1, np.int32), np.full(len(hashes), -1, np.int64)
        if not held:
            return shard, row
        every = np.concatenate(held)
        first = np.cumsum([0, *(len(item) for item in held)])
        order = np.argsort(every, kind="stable")
        place = order[np.minimum(np.searchsorted(every[order], hashes), len(every) - 1)]
        found = every[place] == hashes
        shard[found] = np.searchsorted(first, place[found], side="right") - 1
        row[found] = place[found] - first[shard[found]]
        return shard, row


def _put_in_place(made: Path, target: Path) -> None:
    """Move a shard to its name, unless a whole one is there: two runs may bring the same shard at the same moment."""
    if _is_whole(target):
        return
    if target.exists():  # cut off; moved away in one step, because another run may be mending it too
        away = Path(tempfile.mkdtemp(prefix=_HALF, dir=target.parent))
        with suppress(FileNotFoundError):
            os.replace(target, away)
        shutil.rmtree(away, ignore_errors=True)
    try:
        os.replace(made, target)
    except OSError:
        if not _is_whole(target):
            raise


def _is_whole(shard: Path) -> bool:
    """Both files are there and of one length: a copy that was cut off counts as missing."""
    try:
        texts = np.load(shard / _TEXTS, mmap_mode="r")
        vectors = np.load(shard / _VECTORS, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return texts.dtype == _HASH and vectors.ndim == 2 and len(texts) == len(vectors)


@dataclass(frozen=True)
class StoredPassages:
    """Vectors in memory-mapped shards. Passage `i` is row `row[i]` of shard `shard[i]`."""

    shards: Sequence[np.ndarray]
    shard: np.ndarray
    row: np.ndarray

    @property
    def dimension(self) -> int:
        return self.shards[0].shape[1] if len(self.shards) else 0

    def __len__(self) -> int:
        return len(self.shard)

    def blocks(self, size: int, first: int = 0, step: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = np.lexsort((self.row, self.shard))
        for start in range(first * size, len(order), step * size):
            numbers = order[start : start + size]
            yield numbers, self._read(numbers)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        return self._read(np.asarray(numbers)).astype(np.float32, copy=False)

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        vectors = np.empty((len(numbers), self.dimension), self.shards[0].dtype if len(self.shards) else np.float32)
        shard, row = self.shard[numbers], self.row[numbers]
        for one in np.unique(shard):
            here = np.flatnonzero(shard == one)
            rows = row[here]
            whole = len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all()
            part = self.shards[one][rows[0] : rows[-1] + 1] if whole else self.shards[one][rows]
            if here[-1] - here[0] == len(here) - 1:
                vectors[here[0] : here[-1] + 1] = part
            else:
                vectors[here] = part
        return vectors


def hashes_of(texts: Sequence[str]) -> np.ndarray:
    """S16 [n]: 16 bytes of each text's hash."""
    digests = [hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest() for text in texts]
    return np.array(digests, _HASH)

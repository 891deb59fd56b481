"""The folder of all vector stores together: who uses it now, and what goes when it is too large."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.errors import PipelineError

_LOCK, _GONE = ".lock", ".gone-"
_NO_LOCKS = {errno.EACCES, errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
"""What a file system without locks answers, or one that belongs to somebody else."""


@dataclass(frozen=True)
class Pruned:
    """How many shards were deleted, their bytes, and the bytes that are left."""

    shards: int
    freed: int
    left: int


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """While vectors are looked up and added nothing is deleted; any number of processes may be here at once.

    Vectors that were opened stay readable afterwards: a mapped file outlives its name.
    """
    with _locked(folder, fcntl.LOCK_SH):
        yield


def mark_used(shards: list[Path]) -> None:
    """Their folders' times say when they were needed last."""
    for shard in shards:
        with suppress(PermissionError):  # another user's, in a folder that several share
            os.utime(shard)


def clock(folder: Path) -> int:
    """Now in ns as the file system counts, whose clock may be another machine's."""
    with _locked(folder, fcntl.LOCK_SH):
        os.utime(folder / _LOCK)
        return (folder / _LOCK).stat().st_mtime_ns


def prune(folder: Path, most: float, since: int) -> Pruned | None:
    """Delete shards, the longest unused first, until those of all stores in `folder` take at most `most` bytes.

    Shards used since then (`clock`) stay, whatever they take. None: another process is using the folder,
    and nothing was deleted.
    """
    try:
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return _prune(folder, most, since)
    except BlockingIOError:
        return None


def _prune(folder: Path, most: float, since: int) -> Pruned:
    for leftover in folder.glob(f"{_GONE}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    shards = sorted(((shard.stat().st_mtime_ns, shard) for shard in _shards(folder)), reverse=True)
    sizes = {shard: sum(file.stat().st_size for file in shard.iterdir()) for _, shard in shards}
    left, freed, gone = sum(sizes.values()), 0, 0
    while left > most and shards and shards[-1][0] < since:
        shard = shards.pop()[1]
        if _delete(folder, shard):
            left, freed, gone = left - sizes[shard], freed + sizes[shard], gone + 1
    for store in {key.parent for key in folder.glob("*/key.json")}:
        if not any(item.is_dir() and any(item.iterdir()) for item in store.iterdir()):
            _delete(folder, store)
    return Pruned(gone, freed, left)


def _shards(folder: Path) -> Iterator[Path]:
    """Whole shards; what another process is writing has a hidden name."""
    for file in folder.glob("[!.]*/[!.]*/[!.]*/vectors.npy"):
        if (file.parents[2] / "key.json").is_file():
            yield file.parent


def _delete(folder: Path, place: Path) -> bool:
    """At once for every reader: under a name nobody looks for. A killed process leaves it to the next one.

    False if it is another user's.
    """
    away = folder / f"{_GONE}{place.name}-{time.time_ns()}"
    try:
        os.replace(place, away)
    except PermissionError:
        return False
    shutil.rmtree(away, ignore_errors=True)
    return True


def _locked(folder: Path, how: int) -> IO[str]:
    """The open lock file; the lock is given back when it is closed.

    Raises:
        BlockingIOError: `how` says not to wait, and another process holds the lock.
        PipelineError: the folder's file system has no locks, or the folder may not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a+")  # NFS gives a shared lock only on a file that may be read
        try:
            fcntl.flock(lock, how)
        except BaseException:
            lock.close()
            raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise PipelineError(
            f"{folder / _LOCK} cannot be locked: {error.strerror}",
            fix="set cache_embeddings_dir to a folder of yours on a local disk",
        ) from error
    return lock

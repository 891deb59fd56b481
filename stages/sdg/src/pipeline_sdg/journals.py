"""Which journals a run uses: its own, and those of the shards and the preview in its folder.

    ROOT/journal.sqlite    ROOT/preview/journal.sqlite    ROOT/shards/I-of-N/journal.sqlite

A shard or a preview reads its own, the root's and the preview's; the run of the root reads all of them, so that it
pays only for what no shard has.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from pipeline.errors import PipelineError
from pipeline.run.files import write_text
from pipeline.run.lock import holder_text, is_locked
from pipeline.run.manifest import STARTED
from pipeline.run.snapshot import MANIFEST
from pipeline_sdg.journal import Journal

log = logging.getLogger("pipeline")

JOURNAL = "journal.sqlite"
_PREVIEW, _SHARDS = "preview", "shards"


@contextlib.contextmanager
def open_journal(
    folder: Path,
    root: Path | None = None,
    resume: Literal["never", "always", "if_possible"] = "if_possible",
) -> Iterator[Journal]:
    """The journal of this run. `root`: the folder of the whole run, if `folder` is that of a shard or a preview.

    The budget of a shard or a preview is its own; that of the root has to pay for all.

    `resume`: `never` puts this run's own journal aside (it is kept, and not read again); `always` insists on one.

    A write-ahead log is shared by the processes of one machine, not by several: a journal that another host has open
    is left alone. Its owner stands in a file beside it.

    Raises:
        PipelineError: `always`, and there is none; or a journal is damaged.
    """
    root = root or folder
    path = folder / JOURNAL
    whole = [root / JOURNAL, root / _PREVIEW / JOURNAL]
    others = [item for item in (_journals(root) if folder == root else whole) if item.is_file() and item != path]
    if resume == "always" and not others and not path.is_file():
        raise PipelineError(f"resume=always: {folder} holds no journal", fix="use resume=if_possible for a first run")
    if resume == "never":
        _put_aside(path)
        others = []
    free = [item for item in others if not _used_elsewhere(item)]
    owner = _owner(path)
    write_text(owner, socket.gethostname() + "\n")
    try:
        with Journal(path, free, counted=folder == root) as journal:
            yield journal
    finally:
        owner.unlink(missing_ok=True)


def unfinished_shards(root: Path) -> list[str]:
    """Shards of a run that have not come to their end, running ones included: `shards/I-of-N`, relative to `root`."""
    return [
        folder.relative_to(root).as_posix()
        for folder in _shards(root)
        if not (folder / MANIFEST).is_file() or (folder / STARTED).exists() or _holder(folder)
    ]


def running_shards(root: Path) -> list[str]:
    """The shards that a process works on now, each with who that is, for a message.

    A journal that another host has open counts: a merge could not read it, and would pay for its answers again.
    """
    held = ((folder.relative_to(root).as_posix(), _holder(folder)) for folder in _shards(root))
    return [f"{name} ({holder})" for name, holder in held if holder]


def _journals(root: Path) -> list[Path]:
    """Of the preview and of all shards, in a fixed order."""
    return [folder / JOURNAL for folder in (root / _PREVIEW, *_shards(root))]


def _shards(root: Path) -> list[Path]:
    folder = root / _SHARDS
    return sorted(item for item in folder.iterdir() if item.is_dir()) if folder.is_dir() else []


def _holder(shard: Path) -> str | None:
    if is_locked(shard):
        return holder_text(shard)
    host = _other_host(shard / JOURNAL)
    return host and f"in use on {host}; if that run is dead, delete {_owner(shard / JOURNAL)}"


def _owner(journal: Path) -> Path:
    return journal.with_suffix(".owner")


def _other_host(journal: Path) -> str | None:
    """Which other machine has the journal open."""
    try:
        host = _owner(journal).read_text().strip()
    except OSError:
        return None
    return None if host == socket.gethostname() else host


def _used_elsewhere(journal: Path) -> bool:
    host = _other_host(journal)
    if host is None:
        return False
    log.warning(
        f"warning: {journal} is in use on {host} and is not read (if that run is dead, delete {_owner(journal)})"
    )
    return True


def _put_aside(path: Path) -> None:
    if not path.is_file():
        return
    with Journal(path):
        pass  # closing it folds the log into the file
    aside = path.with_name(f"{path.stem}.until-{datetime.now():%Y%m%d-%H%M%S-%f}.sqlite")
    path.rename(aside)
    for leftover in (f"{path}-wal", f"{path}-shm"):
        Path(leftover).unlink(missing_ok=True)
    log.info(f"resume=never: earlier answers are kept in {aside.name} and not used")

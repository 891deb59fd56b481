"""Which journals a run uses: its own, and those of other shards and earlier runs in its folder."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from pipeline.errors import PipelineError
from pipeline.run.files import write_text
from pipeline_sdg.journal import Journal

log = logging.getLogger("pipeline")

_NAME = re.compile(r"journal(-\d+-of-\d+)?\.sqlite")


def journal_name(shard: tuple[int, int] | None) -> str:
    """`journal.sqlite`, or `journal-<i>-of-<n>.sqlite` for shard (i, n)."""
    return f"journal-{shard[0]}-of-{shard[1]}.sqlite" if shard else "journal.sqlite"


@contextlib.contextmanager
def open_journal(
    folder: Path,
    shard: tuple[int, int] | None = None,
    resume: Literal["never", "always", "if_possible"] = "if_possible",
) -> Iterator[Journal]:
    """The journal of this run. It reads all journals of the folder; a shard has a file of its own to write to.

    `resume`: `never` puts this run's own journal aside (it is kept, and not read again); `always` insists on one.

    A write-ahead log is shared by the processes of one machine, not by several: a journal that another host has open
    is left alone. Its owner stands in a file beside it.

    Raises:
        PipelineError: `always`, and there is none; or a journal is damaged.
    """
    path = folder / journal_name(shard)
    others = [item for item in _journals(folder) if item != path]
    if resume == "always" and not others and not path.is_file():
        raise PipelineError(f"resume=always: {folder} holds no journal", fix="use resume=if_possible for a first run")
    if resume == "never":
        _put_aside(path)
        others = []
    free = [item for item in others if not _used_elsewhere(item)]
    owner = _owner(path)
    write_text(owner, socket.gethostname() + "\n")
    try:
        with Journal(path, free) as journal:
            yield journal
    finally:
        owner.unlink(missing_ok=True)


def _journals(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(item for item in folder.iterdir() if _NAME.fullmatch(item.name))


def _owner(journal: Path) -> Path:
    return journal.with_suffix(".owner")


def _used_elsewhere(journal: Path) -> bool:
    try:
        host = _owner(journal).read_text().strip()
    except OSError:
        return False
    if host == socket.gethostname():
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

"""One process at a time in a stage's folder, and a message that says who holds it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import LockedError
from pipeline.run.files import write_json

_HOLDER = ".lock.holder.json"
SERVICE_FILE = "service.json"
"""In the folder of a deploy stage: the record of what it serves."""


@contextmanager
def stage_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The operating system releases it when the process dies, however it dies.

    Raises:
        LockedError: another process holds it; the message names process, host, start time and command.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LockedError(
            f"{folder} is in use by {holder_text(folder)}",
            fix="stop the service that it runs with `deploy-stop`, or choose another run_dir"
            if (folder / SERVICE_FILE).is_file()
            else "wait until it ends, stop that process, or choose another run_dir",
        ) from None
    try:
        write_json(
            folder / _HOLDER,
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": Path(sys.argv[0]).name,
            },
        )
        yield
    finally:
        (folder / _HOLDER).unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a living process holds the folder's lock."""
    from filelock import FileLock, Timeout

    if not (folder / ".lock").exists():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True


def holder_text(folder: Path) -> str:
    try:
        holder = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return "another process"
    return f"process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['command']})"

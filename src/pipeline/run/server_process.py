"""A server's process: told from a later one with the same number, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from pipeline.errors import PipelineError

_POLL_SECONDS = 0.1
_SECONDS_TO_DIE = 5.0


def process_start(pid: int) -> str | None:
    """When the process began, as the system tells it; None if it does not exist or has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _start_from_ps(pid)
    except (OSError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{ticks}@{_boot_id()}"


def _start_from_ps(pid: int) -> str | None:
    """For systems without /proc."""
    asked = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, began = asked.stdout.strip().partition(" ")
    return began.strip() if state and not state.startswith("Z") else None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return ""


def end_process(pid: int, start: str, timeout: float) -> bool:
    """Ask the process that began at `start` to end (SIGTERM), kill it after `timeout` seconds; False if killed.

    Raises:
        PipelineError: it belongs to another user, or does not even die.
    """
    asked = _signalled(pid, start, signal.SIGTERM, timeout)
    if not asked and not _signalled(pid, start, signal.SIGKILL, _SECONDS_TO_DIE):
        raise PipelineError(f"process {pid} does not end", fix=f"look at it: ps -p {pid}")
    return asked


def _signalled(pid: int, start: str, number: signal.Signals, timeout: float) -> bool:
    """Send a signal and wait until the process is gone; False if it is not."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return True
    except PermissionError:
        raise PipelineError(f"process {pid} belongs to another user", fix="let its owner stop it") from None
    deadline = time.monotonic() + timeout
    while process_start(pid) == start:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True

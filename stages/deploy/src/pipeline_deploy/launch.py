"""Start the server in the background and wait until it answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.run.service import answers
from pipeline_deploy.server import Settings

_FIRST_WAIT = 0.1


def start_detached(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    """Start the server in a session of its own, so that closing the terminal does not end it.

    Its output goes to `log`; the log of the service before it is kept as `<log>.1`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        os.replace(log, log.with_name(log.name + ".1"))
    command = [sys.executable, "-m", "pipeline_deploy.server", *settings.arguments()]
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_until_ready(
    process: subprocess.Popen[bytes], url: str, log: Path, timeout: float, interval: float, keep_failed: bool
) -> None:
    """Return once the server answers. The waits between two looks grow to `interval` seconds.

    Raises:
        PipelineError: the process ended or did not answer in time; the message holds the end of its log. In the second
            case it is stopped, unless `keep_failed`.
    """
    deadline, wait = time.monotonic() + timeout, _FIRST_WAIT
    while True:
        if process.poll() is not None:
            raise PipelineError(
                f"the server ended with exit code {process.returncode} before it was ready:\n{_end_of(log)}",
                fix=f"the whole log: {log}",
            )
        if answers(url):
            return
        left = deadline - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(wait, left, interval))
        wait *= 1.5
    fate = f"process {process.pid} was left running for inspection" if keep_failed else "it was stopped"
    if not keep_failed:
        end(process)
    raise PipelineError(
        f"the server did not answer at {url} within {timeout:g} s; {fate}:\n{_end_of(log)}",
        fix=f"the whole log: {log}; a large model may need health_check_timeout={2 * timeout:g}",
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, then make it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


def _end_of(log: Path, lines: int = 15) -> str:
    with log.open(encoding="utf-8", errors="replace") as stream:
        last = deque(stream, maxlen=lines)
    return "".join(f"    {line.rstrip()}\n" for line in last).rstrip() or "    (its log is empty)"

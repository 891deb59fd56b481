"""A server that is starting: how it is looked at, and the wait until it answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import PipelineError
from pipeline.run.service import answers
from pipeline_deploy.server import Settings

_FIRST_WAIT = 0.1
_SHOWN_LINES = 15


class Server(Protocol):
    """A server that was started: a process or a container."""

    @property
    def who(self) -> str:
        """`process 12`."""

    @property
    def log(self) -> str:
        """Where its whole log is, in words."""

    def exit_code(self) -> int | None:
        """None while it runs."""

    def last_lines(self, count: int) -> list[str]:
        """The end of its log."""

    def end(self) -> None:
        """Ask it to end, then make it; its log is kept."""


@dataclass(frozen=True)
class ServerProcess:
    """Our own server in the background. `path` is its log."""

    process: subprocess.Popen[bytes]
    path: Path

    @property
    def who(self) -> str:
        return f"process {self.process.pid}"

    @property
    def log(self) -> str:
        return str(self.path)

    def exit_code(self) -> int | None:
        return self.process.poll()

    def last_lines(self, count: int) -> list[str]:
        with self.path.open(encoding="utf-8", errors="replace") as stream:
            return [line.rstrip() for line in deque(stream, maxlen=count)]

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


def start_detached(settings: Settings, log: Path) -> ServerProcess:
    """Start the server in a session of its own, so that closing the terminal does not end it.

    Its output goes to `log`; the log of the service before it is kept as `<log>.1`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        os.replace(log, log.with_name(log.name + ".1"))
    command = [sys.executable, "-m", "pipeline_deploy.server", *settings.arguments()]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    return ServerProcess(process, log)


def wait_until_ready(server: Server, url: str, timeout: float, interval: float, keep_failed: bool) -> None:
    """Return once the server answers.

    Raises:
        PipelineError: it ended or did not answer in time; the message holds the end of its log. In the second case it
            is stopped, unless `keep_failed`.
    """
    deadline = time.monotonic() + timeout
    for wait in growing_waits(interval):
        code = server.exit_code()
        if code is not None:
            raise PipelineError(
                f"the server ended with exit code {code} before it was ready:\n{_end_of_log(server)}",
                fix=f"the whole log: {server.log}",
            )
        if answers(url):
            return
        left = deadline - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(wait, left))
    fate, text = "was left running for inspection" if keep_failed else "was stopped", _end_of_log(server)
    if not keep_failed:
        server.end()
    raise PipelineError(
        f"the server did not answer at {url} within {timeout:g} s; {server.who} {fate}:\n{text}",
        fix=f"the whole log: {server.log}; a large model may need health_check_timeout={2 * timeout:g}",
    )


def growing_waits(longest: float) -> Iterator[float]:
    """Seconds between two looks: short ones first, up to `longest`."""
    wait = _FIRST_WAIT
    while True:
        yield min(wait, longest)
        wait = min(1.5 * wait, longest)


def _end_of_log(server: Server) -> str:
    lines = server.last_lines(_SHOWN_LINES)
    return "\n".join(f"    {line}" for line in lines) or "    (its log is empty)"

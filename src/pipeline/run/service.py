"""The record of a running service (`service.json`) and what one can do with it: look, stop, read its log.

Used by the deploy stage and by the command line; imports the standard library alone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.run.files import read_json, write_json

SERVICE_FILE = "service.json"
LIVE_PATH, READY_PATH = "/v1/health/live", "/v1/health/ready"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Service:
    """One server process. `process_start` tells it from a later process that was given the same number.

    Attributes:
        machine: host name of the machine it runs on.
        host, port: where it listens.
        url: where clients on this machine reach it.
        started: UTC time, ISO 8601.
        log: file its output goes to, or None when it writes to a terminal.
    """

    pid: int
    process_start: str
    machine: str
    host: str
    port: int
    url: str
    backend: str
    model_dir: str
    served_model_name: str
    contract_digest: str
    started: str
    log: str | None = None


class Health(StrEnum):
    READY = "ready"
    STARTING = "starting"
    """The process lives and does not answer (yet)."""
    GONE = "gone"
    """There is a record, but its process has ended."""
    NONE = "not deployed"


def write_service(folder: Path, service: Service) -> Path:
    return write_json(folder / SERVICE_FILE, {"schema_version": 1, **asdict(service)})


def read_service(folder: Path) -> Service | None:
    """The record in a deploy stage's folder, or None.

    Raises:
        PipelineError: the file is damaged.
    """
    path = folder / SERVICE_FILE
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        return Service(**{name: data[name] for name in Service.__dataclass_fields__})
    except (KeyError, TypeError) as error:
        raise PipelineError(
            f"{path} is damaged: it lacks {error}", fix="stop the server by hand, delete the file"
        ) from error


def forget_service(folder: Path) -> None:
    (folder / SERVICE_FILE).unlink(missing_ok=True)


def is_alive(service: Service) -> bool:
    """Whether the recorded process still runs. Always False for another machine's process: it cannot be seen."""
    return service.machine == socket.gethostname() and process_start(service.pid) == service.process_start


def health(folder: Path, timeout: float = 2.0) -> Health:
    """Look at the process first, then ask the server."""
    service = read_service(folder)
    if service is None:
        return Health.NONE
    elsewhere = service.machine != socket.gethostname()
    if not elsewhere and not is_alive(service):
        return Health.GONE
    if answers(service.url, timeout):
        return Health.READY
    return Health.GONE if elsewhere else Health.STARTING


def describe(folder: Path) -> tuple[bool, str]:
    """Whether the service of a run is ready, and what is known of it in a few lines."""
    state, service = health(folder), read_service(folder)
    if service is None:
        return False, f"{state}: no service in {folder}"
    where = f"process {service.pid} on {service.machine}, since {service.started}"
    lines = [
        f"{state}: {service.url} ({where})",
        f"model: {service.served_model_name} (contract {service.contract_digest}) from {service.model_dir}",
    ]
    if service.log:
        lines.append(f"log: {service.log}")
    return state == Health.READY, "\n".join(lines)


def answers(url: str, timeout: float = 2.0) -> bool:
    """Whether the server at `url` says that it is ready. No proxy is asked on the way."""
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(url + READY_PATH, timeout=timeout) as reply:
            return reply.status == 200
    except (OSError, ValueError):  # refused, timed out, an error status, or not HTTP
        return False


def stop(folder: Path, timeout: float = 15.0) -> str:
    """Stop the service and forget its record; returns what was done, in words.

    The process is asked first (SIGTERM: it finishes the requests it has) and killed after `timeout` seconds.

    Raises:
        PipelineError: there is no record, or the process runs on another machine or belongs to someone else.
    """
    service = read_service(folder)
    if service is None:
        raise PipelineError(f"no service was deployed in {folder}", fix="run_dir= or -c names the run you mean")
    if service.machine != socket.gethostname():
        raise PipelineError(f"the service runs on {service.machine} (process {service.pid})", fix="stop it from there")
    if not is_alive(service):
        forget_service(folder)
        return f"the service at {service.url} had already ended (process {service.pid})"
    asked = _end(service, signal.SIGTERM, timeout)
    if not asked and not _end(service, signal.SIGKILL, 5.0):
        raise PipelineError(f"process {service.pid} does not end", fix=f"look at it: ps -p {service.pid}")
    forget_service(folder)
    return f"stopped the service at {service.url} (process {service.pid}{'' if asked else ', killed'})"


def tail(folder: Path, lines: int = 50, follow: bool = False) -> Iterator[str]:
    """The last lines of the service's log, then, with `follow`, every new one until its process ends.

    Raises:
        PipelineError: there is no log.
    """
    service = read_service(folder)
    path = Path(service.log) if service and service.log else folder / "logs" / "server.log"
    if not path.is_file():
        raise PipelineError(f"{path} does not exist", fix="a foreground service logs to logs/latest.log")
    with path.open(encoding="utf-8", errors="replace") as stream:
        yield from (line.rstrip("\n") for line in deque(stream, maxlen=lines))
        rest = ""
        while follow:
            ended = service is None or not is_alive(service)  # looked at before reading: what it wrote last is read
            rest += stream.read()
            *complete, rest = rest.split("\n")
            yield from complete
            if ended:
                break
            time.sleep(_POLL_SECONDS)
        if rest:
            yield rest


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


def _end(service: Service, number: signal.Signals, timeout: float) -> bool:
    """Send a signal and wait until the process is gone; False if it is not."""
    try:
        os.kill(service.pid, number)
    except ProcessLookupError:
        return True
    except PermissionError:
        raise PipelineError(f"process {service.pid} belongs to another user", fix="let its owner stop it") from None
    deadline = time.monotonic() + timeout
    while is_alive(service):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True

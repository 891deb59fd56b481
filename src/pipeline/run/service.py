"""The record of a running service (`service.json`) and what one can do with it: look, stop, read its log.

Used by the deploy stage and by the command line; imports the standard library alone, and `docker` for a container.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import MISSING, asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.run import docker_engine
from pipeline.run.files import read_json, write_json
from pipeline.run.lock import SERVICE_FILE
from pipeline.run.server_process import end_process, process_start

LIVE_PATH, READY_PATH = "/v1/health/live", "/v1/health/ready"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Service:
    """One server: a process, or a container.

    Attributes:
        pid, process_start: the process; its start tells it from a later one that was given the same number. None and ""
            for a container.
        machine: host name of the machine it runs on.
        host, port: where it listens.
        url: where clients on this machine reach it.
        started: UTC time, ISO 8601.
        model_dir: the served export, or "" when a container serves the model of its image.
        contract_digest: of the served export, or "" when it has no contract.
        log: file its output goes to, or None when it writes to a terminal or into the engine's log.
        container, container_name, image: id, name and image of a container.
        engine: the container's engine (`docker_engine.current_address`); None in older records: the current one.
    """

    pid: int | None
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
    container: str | None = None
    container_name: str | None = None
    image: str | None = None
    engine: str | None = None

    @property
    def who(self) -> str:
        """The process or the container, in words."""
        return f"container {self.container_name}" if self.container else f"process {self.pid}"

    @property
    def what(self) -> str:
        """The model, in words."""
        contract = f" (contract {self.contract_digest})" if self.contract_digest else ""
        return f"{self.served_model_name}{contract} from {self.model_dir or self.image}"


class Health(StrEnum):
    READY = "ready"
    STARTING = "starting"
    """The process lives and does not answer (yet)."""
    GONE = "gone"
    """There is a record, but its process or container has ended."""
    UNKNOWN = "unknown"
    """It runs, or ran, on another machine, and does not answer from here."""
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
        return Service(
            **{item.name: data[item.name] for item in fields(Service) if item.name in data or item.default is MISSING}
        )
    except (KeyError, TypeError) as error:
        raise PipelineError(
            f"{path} is damaged: it lacks {error}", fix="stop the server by hand, delete the file"
        ) from error


def forget_service(folder: Path) -> None:
    (folder / SERVICE_FILE).unlink(missing_ok=True)


def is_alive(service: Service) -> bool:
    """Whether the recorded server still runs. Always False for another machine's: it cannot be seen.

    Raises:
        PipelineError: it is a container, and its engine cannot be asked.
    """
    if service.machine != socket.gethostname():
        return False
    if service.container is None:
        return service.pid is not None and process_start(service.pid) == service.process_start
    with closing(docker_engine.connect(service.engine)) as client:
        container = docker_engine.find_container(client, service.container)
        return container is not None and docker_engine.is_running(container)


def health(folder: Path, timeout: float = 2.0) -> Health:
    """Look at the process first, then ask the server."""
    service = read_service(folder)
    if service is None:
        return Health.NONE
    elsewhere = service.machine != socket.gethostname()
    if elsewhere and _is_local(service.host):
        return Health.UNKNOWN  # whoever answers at this address here is somebody else
    if not elsewhere and not is_alive(service):
        return Health.GONE
    if answers(service.url, timeout):
        return Health.READY
    return Health.UNKNOWN if elsewhere else Health.STARTING


def _is_local(host: str) -> bool:
    """Whether `host` means every machine itself: a loopback address, or any address."""
    return host in ("", "localhost", "0.0.0.0", "::", "::1") or host.startswith("127.")


def describe(folder: Path) -> tuple[bool, str]:
    """Whether the service of a run is ready, and what is known of it in a few lines."""
    state, service = health(folder), read_service(folder)
    if service is None:
        return False, f"{state}: no service in {folder}"
    where = f"{service.who} on {service.machine}, since {service.started}"
    lines = [f"{state}: {service.url} ({where})", f"model: {service.what}"]
    if state == Health.UNKNOWN:
        lines.insert(1, f"it runs on {service.machine}, cannot be seen from here: ask there")
    if service.log:
        lines.append(f"log: {service.log}")
    return state == Health.READY, "\n".join(lines)


def answers(url: str, timeout: float = 2.0) -> bool:
    """Whether the server at `url` says that it is ready."""
    return fetch(url + READY_PATH, timeout) is not None


def fetch(url: str, timeout: float = 2.0) -> bytes | None:
    """The body of a reply with status 200, else None. No proxy is asked on the way."""
    from http.client import HTTPException
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(url, timeout=timeout) as reply:
            return reply.read() if reply.status == 200 else None
    except (OSError, ValueError, HTTPException):  # refused, timed out, an error status, or not HTTP
        return None


def stop(folder: Path, timeout: float = 15.0) -> str:
    """Stop the service and forget its record; returns what was done, in words.

    It is asked first (SIGTERM: it finishes the requests it has) and killed after `timeout` seconds. A container is
    removed; what it wrote goes to `logs/server.log`.

    Raises:
        PipelineError: there is no record, the server runs on another machine or belongs to someone else, or its engine
            cannot be asked.
    """
    service = read_service(folder)
    if service is None:
        raise PipelineError(f"no service was deployed in {folder}", fix="run_dir= or -c names the run you mean")
    if service.machine != socket.gethostname():
        raise PipelineError(f"the service runs on {service.machine} ({service.who})", fix="stop it from there")
    alive = is_alive(service)
    if service.container:
        asked = _put_away(service, log_file(folder), timeout)
    else:
        asked = not alive or end_process(service.pid or 0, service.process_start, timeout)
    forget_service(folder)
    if not alive:
        return f"the service at {service.url} had already ended ({service.who})"
    return f"stopped the service at {service.url} ({service.who}{'' if asked else ', killed'})"


def log_file(folder: Path) -> Path:
    """Where a deploy stage's folder keeps what its server in the background wrote."""
    return folder / "logs" / "server.log"


def _put_away(service: Service, log: Path, timeout: float) -> bool:
    with closing(docker_engine.connect(service.engine)) as client:
        container = docker_engine.find_container(client, service.container or "")
        return container is None or docker_engine.put_away(container, log, timeout)


def tail(folder: Path, lines: int = 50, follow: bool = False) -> Iterator[str]:
    """The last lines of the service's log, then, with `follow`, every new one until it ends.

    Raises:
        PipelineError: there is no log.
    """
    service = read_service(folder)
    if service and service.container:
        yield from _tail_container(service, lines, follow)
        return
    path = Path(service.log) if service and service.log else log_file(folder)
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


def _tail_container(service: Service, lines: int, follow: bool) -> Iterator[str]:
    with closing(docker_engine.connect(service.engine)) as client:
        container = docker_engine.find_container(client, service.container or "")
        if container is None:
            raise PipelineError(f"{service.who} has been removed, and its log with it", fix="deploy again")
        yield from docker_engine.lines_of(container, lines, follow)

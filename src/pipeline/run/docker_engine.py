"""The Docker engine: reach it, have an image there, find a container, and put one away.

The `docker` package is imported inside the functions: help pages and dry runs need neither it nor an engine.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import PipelineError
from pipeline.run.files import atomic_open
from pipeline.run.progress import LINE_EVERY_SECONDS

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_LOG = logging.getLogger("pipeline")
Report = Callable[[str], None]
_CONTEXT = "context://"


@contextmanager
def engine_errors() -> Iterator[None]:
    """What the package raises when the engine refuses or goes away, as one of our errors."""
    from docker.errors import DockerException
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (DockerException, RequestException, HTTPError, ConnectionError, TimeoutError) as error:
        raise PipelineError(
            f"the Docker engine does not do what it was asked: {reason(error)}",
            fix="look at it (`docker info`, `docker ps -a`), then give the command again",
        ) from error


def connect(address: str | None = None) -> DockerClient:
    """A client of the engine at `address` (`current_address`), or of the one that the `docker` command uses.

    Raises:
        PipelineError: the package is missing, or no engine answers there.
    """
    try:
        import docker
    except ImportError as error:
        raise PipelineError(
            "this needs the Python package `docker`, which this environment lacks",
            fix="uv pip install 'docker>=7.2'",
        ) from error
    client = None
    try:
        if address and address.startswith(_CONTEXT):
            client = docker.DockerClient.from_context(_context(address.removeprefix(_CONTEXT)).Name)
        else:
            client = docker.from_env(environment={**os.environ, "DOCKER_HOST": address} if address else None)
        client.ping()
    except PipelineError:
        raise
    except Exception as error:  # the package raises its own, requests', ssh's and plain OS errors
        if client is not None:
            client.close()
        raise _unreachable(error, address) from error
    return client


def current_address() -> str:
    """The engine that `connect()` reaches now: DOCKER_HOST, else `context://NAME`, which holds its certificates too.

    A client's own `base_url` does not tell: it is the same for every socket.
    """
    return os.environ.get("DOCKER_HOST") or _CONTEXT + _context(os.environ.get("DOCKER_CONTEXT")).Name


def ensure_image(
    client: DockerClient, name: str, auth: dict[str, str] | None = None, report: Report = _LOG.info
) -> None:
    """Pull an image unless the engine has it; a line tells of the progress now and then.

    Args:
        auth: `username` and `password` for its registry; None takes those of `docker login`.

    Raises:
        PipelineError: it cannot be pulled.
    """
    from docker.errors import DockerException, ImageNotFound

    with engine_errors(), suppress(ImageNotFound):
        client.images.get(name)
        return
    report(f"docker: pulling {name}")
    try:
        _follow_pull(name, client.api.pull(name, stream=True, decode=True, auth_config=auth), report)
        client.images.get(name)
    except (DockerException, OSError) as error:  # OSError: the connection broke
        raise PipelineError(f"cannot pull {name}: {reason(error)}", fix=_pull_fix(name, str(reason(error)))) from error
    report(f"docker: {name} is here")


def find_container(client: DockerClient, name: str) -> Container | None:
    """The container of this name or id, running or not."""
    from docker.errors import NotFound

    with engine_errors():
        try:
            return client.containers.get(name)
        except NotFound:
            return None


def is_running(container: Container) -> bool:
    """Whether its process lives, as the engine says now."""
    from docker.errors import NotFound

    with engine_errors():
        try:
            container.reload()
        except NotFound:
            return False
    return container.status in ("running", "paused", "restarting")


def lines_of(container: Container, last: int | Literal["all"], follow: bool = False) -> Iterator[str]:
    """The last lines that it wrote, then, with `follow`, every new one until it ends."""
    rest = b""
    with engine_errors():
        for part in container.logs(stream=True, follow=follow, tail=last):
            *complete, rest = (rest + part).split(b"\n")
            yield from (line.rstrip(b"\r").decode("utf-8", "replace") for line in complete)
    if rest:
        yield rest.decode("utf-8", "replace")


def put_away(container: Container, log: Path | None = None, timeout: float = 15.0) -> bool:
    """Stop a container, keep what it wrote in `log`, and remove it. False if it had to be killed or had ended before.

    It is asked first (SIGTERM) and killed after `timeout` seconds.

    Raises:
        PipelineError: the engine does not do it; the container may still run.
    """
    from docker.errors import DockerException, NotFound

    asked = False
    with engine_errors(), suppress(NotFound):
        if is_running(container):
            container.stop(timeout=round(timeout))
            container.reload()
            asked = container.attrs["State"]["ExitCode"] != 137  # 128 + SIGKILL
        if log is not None:
            with suppress(DockerException):  # an engine may be set up to keep no logs
                save_log(container, log)
        container.remove(force=True)
    return asked


def save_log(container: Container, path: Path) -> Path:
    """Write everything the container wrote to `path`; the log that lay there is kept as `<path>.1`."""
    with atomic_open(path, "wb") as stream:
        for part in container.logs(stream=True, follow=False):
            stream.write(part)
        if path.exists():  # not before it was read: a container that is gone has no log to give
            os.replace(path, path.with_name(path.name + ".1"))
    return path


def reason(error: BaseException) -> str:
    """The engine's own words, without the address of the request."""
    return str(getattr(error, "explanation", None) or error).strip()


def _context(name: str | None) -> Any:
    """A context of the `docker` command; None is its current one. The package takes the default for one it lacks."""
    from docker.context import ContextAPI

    found = ContextAPI.get_context(name)
    if found is None:
        raise PipelineError(f"docker has no context {name or 'of the configured name'}", fix="see `docker context ls`")
    return found


def _follow_pull(name: str, events: Iterable[dict[str, Any]], report: Report) -> None:
    """Read a pull to its end, adding up the bytes of its layers."""
    from docker.errors import DockerException

    layers: dict[str, tuple[int, int]] = {}
    next_line = time.monotonic() + LINE_EVERY_SECONDS
    for event in events:
        if "error" in event:
            raise DockerException(event["error"])
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            layers[event["id"]] = detail["current"], detail["total"]
        if layers and time.monotonic() >= next_line:
            next_line = time.monotonic() + LINE_EVERY_SECONDS
            done, whole = (sum(column) / 1e9 for column in zip(*layers.values(), strict=True))
            report(f"docker: pulling {name}: {done:.1f} of {whole:.1f} GB so far")


def _pull_fix(name: str, text: str) -> str:
    registry = name.split("/")[0] if "." in name.split("/")[0] else ""
    if any(word in text.lower() for word in ("unauthorized", "denied", "forbidden", "authentication", "no basic auth")):
        login = f"docker login {registry}".rstrip()
        user = " (user `$oauthtoken`, the password is your NGC key)" if registry == "nvcr.io" else ""
        return f"log in: {login}{user}; then give the command again"
    if "not found" in text.lower() or "manifest unknown" in text.lower():
        return "check the name and the tag of the image"
    return f"check the network, try `docker pull {name}`; without a network: `docker load` it from a file"


def _unreachable(error: Exception, address: str | None) -> PipelineError:
    host = address or os.environ.get("DOCKER_HOST")
    where = f"at {host}" if address else f"at DOCKER_HOST={host}" if host else "of this machine (no DOCKER_HOST)"
    text = reason(error)
    if "permission denied" in text.lower():
        fix = "add yourself to its group: sudo usermod -aG docker $USER, then log in again"
    elif not host and shutil.which("docker") is None:
        fix = "install Docker (docs.docker.com/engine/install), or set DOCKER_HOST to an engine"
    else:
        fix = "start it (sudo systemctl start docker, or Docker Desktop), or set DOCKER_HOST; `docker info` shows more"
    return PipelineError(f"cannot reach the Docker engine {where}: {text}", fix=fix)

"""One container from its making to its end: nothing is left of it, unless it goes on where nobody can reach it."""

from __future__ import annotations

import io
import logging
import os
import sys
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.execution.docker_mounts import WORK
from pipeline.execution.docker_spec import SECRETS, ContainerSpec
from pipeline.execution.environment import secret_file
from pipeline.execution.interrupts import Interrupted, Interrupts

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

log = logging.getLogger(__name__)

_STOP_SECONDS = 30
"""How long a stage may take to put its work down when it is stopped."""
Output = Iterator[tuple[bytes | None, bytes | None]]


def run_attached(client: DockerClient, spec: ContainerSpec) -> int:
    """Run one container to its end with its output on this terminal. Returns its exit code (130, 143: stopped).

    Raises:
        PipelineError: it cannot be made or started, or nobody knows how it ended: then it is left alone.
        Interrupted: a signal came when it was over.
    """
    container: Container | None = None
    with Interrupts() as interrupts:
        try:
            with interrupts.held():
                container, output = _started(client, spec, attach=True)
            code = _followed(container, output, spec)
        except Interrupted as stopped:
            code = stopped.code
            with suppress(Interrupted, *_broken()):
                log.info(f"stopping {spec.task} (again: kill it)")
                if container is not None:
                    container.stop(timeout=_STOP_SECONDS)
        with interrupts.held():
            _remove(container)
        return code


def start_detached(client: DockerClient, spec: ContainerSpec) -> str:
    """Start a container and leave it alone. Returns its name.

    Raises:
        PipelineError: it cannot be made or started.
        SystemExit: a signal came meanwhile; nothing runs.
    """
    container: Container | None = None
    try:
        with Interrupts() as interrupts, interrupts.held():
            container, _ = _started(client, spec, attach=False)
    except Interrupted as stopped:
        _remove(container)
        raise SystemExit(stopped.code) from None
    return str(container.name)


def _started(client: DockerClient, spec: ContainerSpec, attach: bool) -> tuple[Container, Output]:
    """A container that runs, and its output; one that does not start is removed, because it holds the secrets."""
    from pipeline.run.docker_engine import reason

    spec = replace(spec, user=_user(client, spec))
    container = None
    try:
        container = _created(client, spec)
        output = container.attach(stdout=True, stderr=True, stream=True, demux=True) if attach else iter(())
        if spec.environment.secret:
            container.put_archive("/", _secrets_archive(spec))
        container.start()
    except _broken() as error:
        _remove(container)
        raise PipelineError(
            f"the container of {spec.task} does not start: {reason(error)}",
            fix="the image needs sh; GPUs need a driver and the NVIDIA Container Toolkit",
        ) from error
    return container, output


def _created(client: DockerClient, spec: ContainerSpec) -> Container:
    from docker.types import DeviceRequest, Mount

    for folder in spec.made:  # the engine would make them, as root's
        folder.mkdir(parents=True, exist_ok=True)
    profile = spec.profile
    gpus = [DeviceRequest(count=profile.gpus_per_node, capabilities=[["gpu"]])] if profile.gpus_per_node else None
    return client.containers.create(
        spec.image,
        ["sh", "-c", spec.script],
        name=f"pipeline-{spec.task}-{uuid.uuid4().hex[:8]}",
        environment=spec.environment.plain,
        mounts=[Mount(item.there, str(item.host), type="bind", read_only=item.read_only) for item in spec.mounts],
        working_dir=WORK,
        user=spec.user,
        init=True,
        labels={"pipeline.task": spec.task},
        runtime=profile.runtime,
        ipc_mode=profile.ipc_mode,
        shm_size=profile.shm_size,
        network_mode=profile.network,
        device_requests=gpus,
    )


def _user(client: DockerClient, spec: ContainerSpec) -> str:
    """An engine without root's rights shows us as root: there, and there alone, root's files are ours."""
    options = client.info().get("SecurityOptions") or []
    return "0:0" if any("rootless" in option for option in options) else spec.user


def _secrets_archive(spec: ContainerSpec) -> bytes:
    """The secrets as a file that the container's first line reads and deletes: `docker inspect` never shows them."""
    text = secret_file(spec.environment.secret).encode()
    uid, gid = (int(part) for part in spec.user.split(":"))
    folder, file = tarfile.TarInfo(SECRETS.rpartition("/")[0].lstrip("/")), tarfile.TarInfo(SECRETS.lstrip("/"))
    folder.type, folder.mode, file.mode, file.size = tarfile.DIRTYPE, 0o700, 0o600, len(text)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for item, data in ((folder, None), (file, io.BytesIO(text))):
            item.uid, item.gid = uid, gid
            archive.addfile(item, data)
    return packed.getvalue()


def _followed(container: Container, output: Output, spec: ContainerSpec) -> int:
    """Show a container's output and wait for its exit code.

    Raises:
        PipelineError: the connection broke, or nobody reads our output any more; the container may go on.
    """
    from pipeline.run.docker_engine import reason

    try:
        _copy(output)
        code = int(container.wait()["StatusCode"])
        container.reload()
        if container.attrs["State"].get("OOMKilled"):
            log.info(f"{spec.task}: the engine ended it, because it needed more memory than it may have")
    except _broken() as error:
        closed = isinstance(error, BrokenPipeError)
        why = "nobody reads its output any more" if closed else reason(error)
        raise PipelineError(
            f"lost the container of {spec.task}: {why}; {container.name} may go on",
            fix=f"docker logs -f {container.name}; docker stop {container.name}; docker rm {container.name}",
        ) from error
    return code


def _copy(output: Output) -> None:
    for parts in output:
        for part, stream in zip(parts, (sys.stdout, sys.stderr), strict=True):
            if part:
                _write(stream, part)


def _write(stream: Any, part: bytes) -> None:
    try:
        stream.buffer.write(part)
        stream.flush()
    except BrokenPipeError:  # else Python would try the rest again at its own end
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        raise


def _remove(container: Container | None) -> None:
    if container is not None:
        with suppress(*_broken()):
            container.remove(force=True)


def _broken() -> tuple[type[Exception], ...]:
    """What the engine's package raises; OSError covers requests' errors."""
    from docker.errors import DockerException
    from docker.utils.socket import SocketError

    return DockerException, SocketError, OSError

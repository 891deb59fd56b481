"""Stages in containers of a Docker engine."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.execution.docker_mounts import WORK, missing_inputs
from pipeline.execution.docker_spec import SECRETS, ContainerSpec, container_spec
from pipeline.execution.environment import secret_file
from pipeline.execution.interrupts import Interrupted, Interrupts
from pipeline.execution.profile import Profile
from pipeline.execution.tasks import Task

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_STOP_SECONDS = 30
"""How long a stage may take to put its work down when it is stopped."""


class DockerExecutor:
    """Attached: a container for each stage. Detached: one for all, because nobody waits here to start the next."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def describe(self, tasks: Sequence[Task], detached: bool) -> str:
        return "\n".join(_described(self._spec(part)) for part in ([tasks] if detached else [[task] for task in tasks]))

    def missing(self, tasks: Sequence[Task]) -> list[str]:
        return missing_inputs(tasks, self.profile)

    def run(self, tasks: Sequence[Task]) -> int:
        specs = [self._spec([task]) for task in tasks]
        client = _connect(specs)
        for number, spec in enumerate(specs, 1):
            if len(specs) > 1:
                print(f"[{number}/{len(specs)}] {spec.task} in {spec.image}", flush=True)
            code = _run_attached(client, spec)
            if code:
                print(f"{spec.task}: failed with exit code {code}", file=sys.stderr)
                return code
        return 0

    def submit(self, tasks: Sequence[Task]) -> str:
        spec = self._spec(tasks)
        container = _created(_connect([spec]), spec)
        try:
            _start(container, spec)
        except PipelineError:
            container.remove(force=True)
            raise
        name = container.name
        return (
            f"started {name}\n  logs: docker logs -f {name}\n  stop: docker stop {name}\n"
            f"  exit code: docker wait {name}\n  clean up: docker rm {name}"
        )

    def stage_files(self, tasks: Sequence[Task]) -> str:
        raise PipelineError(
            f"--stage puts files on a cluster; profile {self.profile.name!r} starts containers here",
            fix="leave --stage out; --dry-run shows the container",
        )

    def _spec(self, tasks: Sequence[Task]) -> ContainerSpec:
        return container_spec(tasks, self.profile)


def _described(spec: ContainerSpec) -> str:
    profile = spec.profile
    settings = {
        "runtime": profile.runtime,
        "gpus": profile.gpus_per_node,
        "ipc": profile.ipc_mode,
        "shm_size": profile.shm_size,
        "network": profile.network,
    }
    lines = [
        f"container of {spec.task}: {spec.image}",
        "  settings: "
        + ", ".join([f"user {spec.user}", *(f"{key} {value}" for key, value in settings.items() if value)]),
        "  mounts:",
        *(f"    {mount}" for mount in spec.mounts),
        "  environment:",
        *(f"    {line}" for line in spec.environment.lines()),
        f"  command (sh -c, in {WORK}):",
        *(f"    {line}" for line in spec.script.splitlines()),
    ]
    return "\n".join(lines)


def _connect(specs: Sequence[ContainerSpec]) -> DockerClient:
    """An engine that has every image and the runtime: nothing is to fail hours later, at the last stage."""
    from pipeline.run.docker_engine import connect, ensure_image

    client = connect()
    runtime = specs[0].profile.runtime
    known = list(client.info().get("Runtimes") or {})
    if runtime and runtime not in known:
        raise PipelineError(
            f"the Docker engine has no runtime {runtime!r}; it has {', '.join(known)}",
            fix="install the NVIDIA Container Toolkit, or take `runtime` out of the profile to run without GPUs",
        )
    for image in dict.fromkeys(spec.image for spec in specs):
        ensure_image(client, image, report=lambda line: print(line, file=sys.stderr))
    return client


def _created(client: DockerClient, spec: ContainerSpec) -> Container:
    from docker.errors import DockerException
    from docker.types import Mount

    from pipeline.run.docker_engine import reason

    for folder in spec.made:  # the engine would make them, as root's
        folder.mkdir(parents=True, exist_ok=True)
    profile = spec.profile
    try:
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
            device_requests=_gpus(profile.gpus_per_node),
        )
    except DockerException as error:
        raise PipelineError(f"cannot make the container of {spec.task}: {reason(error)}") from error


def _gpus(count: int | None) -> list[Any] | None:
    from docker.types import DeviceRequest

    return [DeviceRequest(count=count, capabilities=[["gpu"]])] if count else None


def _secrets_archive(spec: ContainerSpec) -> bytes:
    """The secrets as a file that the container's first line reads and deletes: `docker inspect` never shows them."""
    import io
    import tarfile

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


def _start(container: Container, spec: ContainerSpec) -> None:
    from docker.errors import DockerException

    from pipeline.run.docker_engine import reason

    try:
        if spec.environment.secret:
            container.put_archive("/", _secrets_archive(spec))
        container.start()
    except DockerException as error:
        raise PipelineError(
            f"the container of {spec.task} does not start: {reason(error)}",
            fix="the image needs sh; GPUs need a driver and the NVIDIA Container Toolkit",
        ) from error


def _run_attached(client: DockerClient, spec: ContainerSpec) -> int:
    """Run one container to its end with its output on this terminal. Returns its exit code (130, 143: stopped)."""
    from docker.errors import DockerException

    from pipeline.run.docker_engine import reason

    container = None
    with Interrupts() as interrupts:
        try:
            with interrupts.held():
                container = _created(client, spec)
            output = container.attach(stdout=True, stderr=True, stream=True, demux=True)
            _start(container, spec)
            _copy(output)
            return _exit_code(container, spec)
        except Interrupted as stopped:
            print(f"stopping {spec.task} (again: kill it)", file=sys.stderr)
            with suppress(Interrupted, DockerException, AttributeError):  # AttributeError: there is none yet
                container.stop(timeout=_STOP_SECONDS)
            return stopped.code
        except (DockerException, OSError) as error:  # OSError: the connection broke
            raise PipelineError(f"lost the container of {spec.task}: {reason(error)}") from error
        finally:
            if container is not None:
                with suppress(DockerException, OSError):
                    container.remove(force=True)


def _exit_code(container: Container, spec: ContainerSpec) -> int:
    code = int(container.wait()["StatusCode"])
    container.reload()
    if container.attrs["State"].get("OOMKilled"):
        print(f"{spec.task}: the engine ended it, because it needed more memory than it may have", file=sys.stderr)
    return code


def _copy(output: Iterator[tuple[bytes | None, bytes | None]]) -> None:
    for parts in output:
        for part, stream in zip(parts, (sys.stdout, sys.stderr), strict=True):
            if part:
                stream.buffer.write(part)
                stream.flush()

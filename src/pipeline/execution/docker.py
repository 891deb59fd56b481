"""Stages in containers of a Docker engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from pipeline.execution.docker_container import run_attached, start_detached
from pipeline.execution.docker_mounts import WORK, missing_inputs
from pipeline.execution.docker_spec import ContainerSpec, container_spec
from pipeline.execution.interrupts import Interrupted
from pipeline.execution.profile import Profile
from pipeline.execution.tasks import Task

if TYPE_CHECKING:
    from docker import DockerClient

log = logging.getLogger(__name__)


class DockerExecutor:
    """Attached: a container for each stage. Detached: one for all, because nobody waits here to start the next."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def describe(self, tasks: Sequence[Task], detached: bool) -> str:
        return "\n".join(_described(self._spec(part)) for part in ([tasks] if detached else [[task] for task in tasks]))

    def missing(self, tasks: Sequence[Task]) -> list[str]:
        return missing_inputs(tasks, self.profile)

    def run(self, tasks: Sequence[Task]) -> int:
        try:
            return self._run(tasks)
        except Interrupted as stopped:
            return stopped.code

    def _run(self, tasks: Sequence[Task]) -> int:
        specs = [self._spec([task]) for task in tasks]
        client = _connect(specs)
        for number, spec in enumerate(specs, 1):
            if len(specs) > 1:
                log.info(f"[{number}/{len(specs)}] {spec.task} in {spec.image}")
            code = run_attached(client, spec)
            if code:
                log.error(f"{spec.task}: failed with exit code {code}")
                return code
        return 0

    def submit(self, tasks: Sequence[Task]) -> str:
        spec = self._spec(tasks)
        name = start_detached(_connect([spec]), spec)
        return (
            f"started {name}\n  logs: docker logs -f {name}\n  stop: docker stop {name}\n"
            f"  exit code: docker wait {name}\n  clean up: docker rm {name}"
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
        ensure_image(client, image, report=log.info)
    return client

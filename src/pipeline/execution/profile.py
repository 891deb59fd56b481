"""The keys of a profile: what a table of env.toml may say about where stages run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import PipelineError
from pipeline.execution.names import is_variable
from pipeline.family import STAGES
from pipeline.schemas.fields import key

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One profile, with `run.env.KEY=VALUE` of the command line over it."""

    name: str = key("", "The table's own name.")
    executor: Literal["local", "docker", "slurm"] = key("local", "What runs the stages.")
    container_image: str | None = key(None, "Image of the container.", aliases=("container",))
    images: dict[str, str] = key({}, "Image for single stages, before container_image.")
    mounts: list[str] = key([], "`HOST:CONTAINER` or `HOST:CONTAINER:ro`; the host's part may hold ~ and $NAME.")
    env_vars: dict[str, str] = key({}, "Environment of the stages; values may hold $NAME of your environment.")
    startup_commands: list[str] = key([], "Shell commands that run before a stage.", aliases=("setup_lines",))
    nodes: int = key(1, "Machines of one job.", ge=1)
    gpus_per_node: int | None = key(None, "GPUs of one machine.", ge=0)
    nproc_per_node: int | Literal["gpu"] | None = key(
        None,
        "Processes on one machine, for stages that take several; null: one for each of gpus_per_node.",
        ge=1,
        aliases=("ntasks_per_node",),
    )
    uv: str | None = key(None, "The uv command over there; null: what the executor finds.")

    runtime: str | None = key(None, "docker: container runtime, such as nvidia.")
    ipc_mode: str | None = key(None, "docker: IPC namespace, such as host.")
    shm_size: str | None = key(None, "docker: size of /dev/shm, such as 16g.")
    network: str | None = key(None, "docker: network, such as host for services on this machine.")
    state_dir: str = key("~/.cache/pipeline/docker", "docker: environments and downloads kept between runs.")

    account: str | None = key(None, "slurm: account.")
    partition: str | None = key(None, "slurm: partition.")
    run_partition: str | None = key(None, "slurm: partition with --run.")
    batch_partition: str | None = key(None, "slurm: partition with --batch.")
    qos: str | None = key(None, "slurm: quality of service.")
    time: str = key("04:00:00", "slurm: time limit.")
    cpus_per_task: int | None = key(None, "slurm: cores.", ge=1)
    mem: str | None = key(None, "slurm: memory, such as 64G; 0 is all.")
    exclusive: bool = key(False, "slurm: whole machines.")
    tunnel: Literal["ssh"] | None = key(None, "slurm: reach the cluster by ssh; null: sbatch runs here.")
    host: str | None = key(None, "slurm: login node.")
    user: str | None = key(None, "slurm: user on the login node.")
    identity: str | None = key(None, "slurm: private key for ssh.")
    port: int | None = key(None, "slurm: port of ssh.", ge=1, le=65535)
    remote_job_dir: str | None = key(None, "slurm: folder that login and compute nodes share.")
    lustre_mount: str | None = key(None, "slurm: one more mount, such as /lustre:/lustre.")

    def problems(self) -> list[tuple[str, str]]:
        """(key, what is wrong) for each broken rule over several keys."""
        known = ", ".join(STAGES)
        found = [("images", f"{stage} is no stage; one of {known}") for stage in self.images if stage not in STAGES]
        found += [("env_vars", f"{name!r} is no name of a variable") for name in self.env_vars if not is_variable(name)]
        if self.executor == "docker" and not (self.container_image or self.images):
            found.append(("container_image", "executor docker needs an image"))
        if self.executor != "slurm" and self.nodes > 1:
            found.append(("nodes", "several machines need executor slurm"))
        if self.tunnel and not self.host:
            found.append(("host", 'tunnel = "ssh" needs the name of the login node'))
        return found

    def image_of(self, stage: str) -> str | None:
        """The container image for a stage; None: no container."""
        return self.images.get(stage) or self.container_image

    def partition_for(self, detached: bool) -> str | None:
        """The Slurm partition: the one for this way of running, else the common one."""
        return (self.batch_partition if detached else self.run_partition) or self.partition

    def processes(self) -> int | str | None:
        """Processes on one machine for a stage that takes several; None: as the stage's configuration says."""
        return self.nproc_per_node or self.gpus_per_node or None

    def environment(self) -> dict[str, str]:
        """`env_vars` with the caller's variables filled in.

        Raises:
            PipelineError: a variable is not set.
        """
        return {name: expand(value, f"profile {self.name!r}, env_vars.{name}") for name, value in self.env_vars.items()}


def image_folder(image: str | None) -> str:
    """The folder of an image's environments: another image has another Python and other libraries."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", image) if image else "host"


def expand(text: str, where: str) -> str:
    """Fill in `$NAME` and `${NAME}` from the environment. `where` names the key in the error.

    Raises:
        PipelineError: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise PipelineError(f"{where}: ${name} is not set", fix=f"export {name}=…, or write the value itself")
        return os.environ[name]

    return _VARIABLE.sub(value, text)


def host_path(text: str, where: str) -> Path:
    """A path of this machine as a profile says it: ~, variables, and relative to the current folder."""
    return Path(os.path.abspath(Path(expand(text, where)).expanduser()))

"""What a container is made from: image, command, environment, mounts, GPUs. Needs neither an engine nor the SDK."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.execution.docker_mounts import Mount, mounts_of
from pipeline.execution.environment import Environment, environment_for, hf_home
from pipeline.execution.own_values import settled
from pipeline.execution.plan import uv_command
from pipeline.execution.profile import Profile, host_path, image_folder
from pipeline.execution.tasks import Task, far_command, joined_arguments
from pipeline.home import workspace

CODE, STATE, UV = "/opt/pipeline", "/opt/pipeline-state", "/opt/pipeline-uv/uv"
SECRETS = "/opt/pipeline-secrets/env"
_NVIDIA = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}


@dataclass(frozen=True)
class ContainerSpec:
    """One container: one task, or several that run one after the other in it.

    Attributes:
        task: what it runs, such as `rerank-finetune`.
        script: the text that `sh -c` runs in it; secrets are sourced from a file, so it holds none.
        made: folders of this machine that must be there before it starts.
    """

    task: str
    image: str
    script: str
    environment: Environment
    mounts: list[Mount]
    made: list[Path]
    user: str
    profile: Profile


def container_spec(tasks: Sequence[Task], profile: Profile) -> ContainerSpec:
    """The container for tasks that follow each other; all of them must have the same image.

    Raises:
        PipelineError: no image or several, a mount or variable of the profile is wrong, uv is not here.
    """
    image = _image(tasks, profile)
    state = host_path(profile.state_dir, f"profile {profile.name!r}, state_dir")
    own = mounts_of(tasks, profile)
    # The hub's cache alone: beside it lies the person's token, which is for the stages that need it.
    hub = Mount(hf_home() / "hub", f"{STATE}/hf/hub")
    fixed = [Mount(workspace(), CODE, read_only=True), Mount(state, STATE), hub]
    if profile.uv is None:
        fixed.append(Mount(_uv_binary(), UV, read_only=True))
    asked = environment_for(tasks, profile)
    environment = Environment({**_base_environment(image, profile), **asked.plain}, asked.secret, asked.unset)
    arguments = joined_arguments([settled(task, profile).there(CODE) for task in tasks])
    command = far_command(arguments, CODE, profile.uv or UV)
    made = [
        state / "hf" / "hub",
        hub.host,
        state / image_folder(image) / "home",
        *(mount.host for mount in own if not mount.host.exists()),
    ]
    task = "-to-".join(dict.fromkeys([tasks[0].name, tasks[-1].name]))
    return ContainerSpec(
        task, image, _script(profile, command, bool(environment.secret)), environment, [*own, *fixed], made,
        f"{os.getuid()}:{os.getgid()}", profile,
    )  # fmt: skip


def _image(tasks: Sequence[Task], profile: Profile) -> str:
    images = {task.stage: profile.image_of(task.stage) for task in tasks}
    for stage, image in images.items():
        if not image:
            raise PipelineError(
                f"profile {profile.name!r} has no image for {stage}", fix=f"container_image, or {stage} under images"
            )
    if len(set(images.values())) > 1:
        raise PipelineError(
            f"one detached container cannot run stages with different images: {images}",
            fix="--run starts a container for each stage and waits; or --batch the stages one by one",
        )
    return next(iter(images.values())) or ""


def _script(profile: Profile, command: Sequence[str], secrets: bool) -> str:
    lines = ["set -e"]
    if secrets:
        lines += ["set -a", f". {SECRETS}", "set +a", f"rm -f {SECRETS}"]
    lines += [*profile.startup_commands, f"exec {shlex.join(command)}"]
    return "\n".join(lines)


def _base_environment(image: str, profile: Profile) -> dict[str, str]:
    folder = f"{STATE}/{image_folder(image)}"
    environment = {
        "HOME": f"{folder}/home",
        "USER": os.environ.get("USER", "pipeline"),
        "PIPELINE_HOME": CODE,
        "PIPELINE_ENV_DIR": f"{folder}/envs",
        "UV_PROJECT_ENVIRONMENT": f"{folder}/envs/cli",
        "UV_CACHE_DIR": f"{STATE}/uv-cache",
        "UV_PYTHON_INSTALL_DIR": f"{STATE}/python",
        "HF_HOME": f"{STATE}/hf",
        "PYTHONUNBUFFERED": "1",
    }
    # Images made for GPUs say this themselves; in others the runtime shows no GPU without it.
    return environment | (_NVIDIA if profile.runtime == "nvidia" and profile.gpus_per_node is None else {})


def _uv_binary() -> Path:
    """This machine's uv, as a program that Linux can start: what PATH has may be a script (pyenv) that leads to it."""
    path = Path(uv_command()).resolve()
    if not _is_linux_program(path):
        asked = [str(path), "run", "--no-project", "--quiet", "printenv", "UV"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        path = Path(told) if told else path
    if not _is_linux_program(path):
        raise PipelineError(
            f"{path} is no program for Linux, which a container could start",
            fix="install uv in the image and name it as `uv` in the profile",
        )
    return path


def _is_linux_program(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"

"""One container: how it is made from the configuration, and how it is looked at and ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.run import docker_engine
from pipeline.schemas.deploy import DeployConfig
from pipeline_deploy.ports import in_use

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

FAMILY_LABEL, RUN_LABEL = "pipeline.family", "pipeline.run_dir"
"""They tell our containers from others."""


@dataclass(frozen=True)
class ServerContainer:
    """A container that was started. `path` is where its log is kept once it has ended."""

    container: Container
    path: Path

    @property
    def who(self) -> str:
        return f"container {self.container.name}"

    @property
    def log(self) -> str:
        return f"docker logs {self.container.name}; {self.path} once it was removed"

    def exit_code(self) -> int | None:
        if docker_engine.is_running(self.container):
            return None
        return int(self.container.attrs["State"]["ExitCode"])

    def last_lines(self, count: int) -> list[str]:
        try:
            return list(docker_engine.lines_of(self.container, count))
        except PipelineError as error:  # an engine may keep no logs; why they are wanted is the error to tell
            return [error.message]

    def end(self) -> None:
        docker_engine.put_away(self.container, self.path)


def start_container(
    client: DockerClient, config: DeployConfig, model: Path | None, secret: str | None, labels: dict[str, str]
) -> Container:
    """Create the container of `config` and start it; nothing is left of one that does not start.

    Args:
        model: folder that is mounted; None leaves the image its own model.
        secret: the NGC key, which reaches the container through its environment alone.

    Raises:
        PipelineError: the engine refuses; the message says what and how to go on.
    """
    from docker.errors import DockerException

    with _explained(config):
        container = client.containers.create(
            config.nim_image,
            name=config.container_name,
            environment=_environment(config, model, secret),
            mounts=_mounts(config, model),
            ports={f"{config.container_port}/tcp": (config.bind_address, config.host_port)},
            device_requests=_gpus(config.gpus),
            shm_size=config.shm_size.replace(" ", ""),
            user=config.user,
            labels=labels,
            detach=True,
        )
        try:
            container.start()
        except BaseException:
            with suppress(DockerException):  # the first error is the one to tell
                container.remove(force=True)
            raise
    return container


def has_gpu_support(client: DockerClient) -> bool:
    """Whether the engine tells of NVIDIA's runtime or devices. Some installations work and do not tell."""
    with docker_engine.engine_errors():
        info = client.info()
    devices = info.get("DiscoveredDevices") or []
    return "nvidia" in (info.get("Runtimes") or {}) or any("nvidia" in str(device.get("ID")) for device in devices)


def _environment(config: DeployConfig, model: Path | None, secret: str | None) -> dict[str, str]:
    """NVIDIA's containers find out from the folder whether it holds an ONNX model or an engine."""
    environment = {"NIM_HTTP_API_PORT": str(config.container_port), "NIM_CACHE_PATH": config.container_cache_path}
    if model:
        environment["NIM_CUSTOM_MODEL"] = config.container_model_path
    if secret:
        environment["NGC_API_KEY"] = secret
    return environment


def _mounts(config: DeployConfig, model: Path | None) -> list[Any]:
    from docker.types import Mount

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().resolve() / "nim"
    cache.mkdir(parents=True, exist_ok=True)
    mounts = [Mount(config.container_cache_path, str(cache), type="bind")]
    if model:
        mounts.append(Mount(config.container_model_path, str(model), type="bind", read_only=True))
    return mounts


def _gpus(asked: str) -> list[Any]:
    from docker.types import DeviceRequest

    if asked == "none":
        return []
    if asked.startswith("device="):
        chosen: dict[str, Any] = {"device_ids": asked.removeprefix("device=").split(",")}
    else:
        chosen = {"count": -1 if asked == "all" else int(asked)}
    return [DeviceRequest(capabilities=[["gpu"]], **chosen)]


@contextmanager
def _explained(config: DeployConfig) -> Iterator[None]:
    """The engine's refusal in our words, with what can be done."""
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, OSError) as error:
        text = docker_engine.reason(error)
        low = text.lower()
        if "device driver" in low or "nvidia" in low or "cdi device" in low:
            raise PipelineError(
                f"the Docker engine gives no GPUs (gpus={config.gpus}): {text}",
                fix="install the NVIDIA container toolkit; without a GPU set backend=onnx, or gpus=none for an image "
                "that needs none",
            ) from error
        if "port is already allocated" in low or "address already in use" in low:
            raise in_use(config.bind_address, config.host_port) from error
        if "unable to find user" in low:
            fix = "set user to a number that the image accepts, or user=null"
        elif "already in use by container" in low:
            fix = f"docker rm -f {config.container_name}, or set container_name"
        else:
            fix = "`docker info` and the engine's own log may say more"
        raise PipelineError(f"container {config.container_name} cannot start: {text}", fix=fix) from error

"""backend=nim: NVIDIA's container, attached to this process or in the background."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.run import docker_engine
from pipeline.run.service import Service, answers, fetch, log_file
from pipeline.run.stage import StageRun
from pipeline.schemas.deploy import DeployConfig
from pipeline_deploy.artifacts import check_engine, open_artifact
from pipeline_deploy.backend import now
from pipeline_deploy.container import FAMILY_LABEL, RUN_LABEL, ServerContainer, has_gpu_support, start_container
from pipeline_deploy.launch import growing_waits
from pipeline_deploy.ports import check_port, reachable_url

if TYPE_CHECKING:
    from docker.models.containers import Container

_REGISTRY = "nvcr.io"
_LOOK_SECONDS = 0.5


class NimContainer:
    """An export, an engine or the image's own model, served by a container."""

    def __init__(self, config: DeployConfig, run: StageRun) -> None:
        self._config, self._run = config, run
        self._model = Path(config.model_dir).expanduser().resolve() if config.model_dir else None
        self._contract = _checked(self._model, run.family.name) if self._model else None
        self._secret = os.environ.get(config.ngc_api_key_env)
        self._log = log_file(run.folder).resolve()

    def prepare(self) -> None:
        config, log = self._config, self._run.log
        self._client = docker_engine.connect()
        before = self._replaceable()
        self._accepted = before.id if before else None
        if not self._secret:
            log.warning(f"deploy: {config.ngc_api_key_env} is not set; the container can fetch nothing from NGC")
        if config.gpus != "none" and not has_gpu_support(self._client):
            log.warning("deploy: the Docker engine tells of no NVIDIA runtime; gpus=none runs without GPUs")
        own = config.nim_image.startswith(_REGISTRY + "/") and self._secret
        login = {"username": "$oauthtoken", "password": self._secret} if own else None
        docker_engine.ensure_image(self._client, config.nim_image, login)

    def start(self) -> tuple[ServerContainer, Service]:
        server = self._start()
        return server, self._service(server.container)

    def serve(
        self, started: Callable[[Service], None], ready: Callable[[Service], None], ended: Callable[[], None]
    ) -> int:
        with _signals_noted() as asked:
            server = self._start()
            try:
                service = self._service(server.container)
                started(service)
                printer = threading.Thread(target=_print_log, args=(server.container,), daemon=True)
                printer.start()
                was_ready = self._wait_for_ready(server, service, asked, ready)
                while not asked.is_set() and server.exit_code() is None:
                    asked.wait(_LOOK_SECONDS)
                code = 0 if asked.is_set() else server.exit_code() or int(not was_ready)
            finally:
                server.end()
                ended()
            printer.join(5)
        return code

    def named(self, service: Service) -> Service:
        """The record under the name that the running container gives its model."""
        body = fetch(service.url + "/v1/models")
        try:
            names = [str(item["id"]) for item in json.loads(body or b"")["data"]]
        except (ValueError, KeyError, TypeError):
            return service
        if not names or service.served_model_name in names:
            return service
        self._run.log.info(f"deploy: the container calls its model {names[0]}")
        return replace(service, served_model_name=names[0])

    def _wait_for_ready(
        self, server: ServerContainer, service: Service, asked: threading.Event, ready: Callable[[Service], None]
    ) -> bool:
        """Whether it answered before it ended or a signal came. A slow start is no error: its log is on the screen."""
        deadline = time.monotonic() + self._config.health_check_timeout
        for wait in growing_waits(self._config.health_check_interval):
            if asked.is_set() or server.exit_code() is not None:
                break
            if answers(service.url):
                self._run.log.info(f"deploy: {server.who} ready at {service.url}")
                ready(self.named(service))
                return True
            if time.monotonic() > deadline:
                deadline = float("inf")
                self._run.log.warning(
                    f"deploy: no answer within {self._config.health_check_timeout:g} s; still waiting, Ctrl-C stops it"
                )
            asked.wait(wait)
        return False

    def _start(self) -> ServerContainer:
        before = self._replaceable()  # looked at again: pulling an image takes long
        if before is not None and before.id != self._accepted:
            raise PipelineError(
                f"container_name={before.name}: a container of this name was made meanwhile, for "
                f"{before.labels[RUN_LABEL]}",
                fix="set container_name to another name, or give the command again to replace that one",
            )
        if before is not None:
            self._run.log.info(f"deploy: container {before.name} of before is removed, its log goes to {self._log}")
            docker_engine.put_away(before, self._log)
        check_port(self._config.bind_address, self._config.host_port)
        labels = {FAMILY_LABEL: self._run.family.name, RUN_LABEL: str(Path(self._run.run_dir).resolve())}
        container = start_container(self._client, self._config, self._model, self._secret, labels)
        self._run.log.info(f"deploy: container {container.name} ({container.short_id}) runs {self._config.nim_image}")
        return ServerContainer(container, self._log)

    def _replaceable(self) -> Container | None:
        """The container of this name; one that is not ours, or that runs and may not be replaced, is an error."""
        name = self._config.container_name
        found = docker_engine.find_container(self._client, name)
        if found is None:
            return None
        run_dir = found.labels.get(RUN_LABEL)
        if run_dir is None:
            image = found.attrs["Config"]["Image"]
            raise PipelineError(
                f"container_name={name}: a container of this name, of image {image}, exists and is not ours",
                fix=f"set container_name to another name, or remove it yourself: docker rm -f {name}",
            )
        if docker_engine.is_running(found) and not self._config.replace_existing:
            raise PipelineError(
                f"container_name={name}: it already runs, for {run_dir}",
                fix=f"set replace_existing=true or another container_name, or stop it: docker stop {name}",
            )
        return found

    def _service(self, container: Container) -> Service:
        config = self._config
        return Service(
            pid=None,
            process_start="",
            machine=socket.gethostname(),
            host=config.bind_address,
            port=config.host_port,
            url=reachable_url(config.bind_address, config.host_port),
            backend="nim",
            model_dir=str(self._model or ""),
            served_model_name=config.served_model_name,
            contract_digest=self._contract.digest() if self._contract else "",
            started=now(),
            container=container.id,
            container_name=container.name,
            image=config.nim_image,
            engine=docker_engine.current_address(),
        )


def _checked(folder: Path, family: str) -> EncodingContract | None:
    """Check what will be mounted: a TensorRT engine if there is a file of that kind, else an ONNX export."""
    if any(folder.glob("*.plan")) or folder.name == "tensorrt":
        return check_engine(folder, family)
    return open_artifact(folder, family).contract


def _print_log(container: Container) -> None:
    with suppress(PipelineError, OSError):  # nobody reads our output any more, or the engine went away
        for line in docker_engine.lines_of(container, "all", follow=True):
            print(line, file=sys.stdout, flush=True)


@contextmanager
def _signals_noted() -> Iterator[threading.Event]:
    """Set the event on Ctrl-C and SIGTERM instead of ending this process, so that the container is put away first."""
    asked = threading.Event()

    def note(*_: object) -> None:
        asked.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

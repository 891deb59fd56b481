"""backend=onnx: our own server, in this process or in the background."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.run.service import Service, log_file, process_start
from pipeline.run.stage import StageRun
from pipeline.schemas.deploy import DeployConfig
from pipeline_deploy.artifacts import open_artifact
from pipeline_deploy.backend import now
from pipeline_deploy.launch import ServerProcess, start_detached
from pipeline_deploy.ports import check_port, reachable_url
from pipeline_deploy.server import Settings, serve
from pipeline_deploy.serving import Limits


class OwnServer:
    """An export served by our own server."""

    def __init__(self, config: DeployConfig, run: StageRun) -> None:
        if not config.model_dir:
            raise PipelineError("backend=onnx needs model_dir", fix="set model_dir to the folder of an ONNX export")
        self._artifact = open_artifact(Path(config.model_dir).expanduser().resolve(), run.family.name)
        self._log = log_file(run.folder).resolve()
        self._settings = Settings(
            run.family.name,
            self._artifact.folder,
            config.bind_address,
            config.host_port,
            config.served_model_name,
            Limits(config.max_request_texts, config.batch_tokens),
            config.threads,
        )

    def prepare(self) -> None:
        """There is nothing to fetch."""

    def start(self) -> tuple[ServerProcess, Service]:
        check_port(self._settings.host, self._settings.port)
        server = start_detached(self._settings, self._log)
        pid = server.process.pid
        service = replace(self._service(), pid=pid, process_start=process_start(pid) or "", log=str(self._log))
        return server, service

    def serve(
        self, started: Callable[[Service], None], ready: Callable[[Service], None], ended: Callable[[], None]
    ) -> int:
        check_port(self._settings.host, self._settings.port)

        def listening() -> None:
            service = self._service()
            started(service)
            ready(service)

        try:
            serve(self._settings, self._artifact, listening)
        finally:
            ended()
        return 0

    def named(self, service: Service) -> Service:
        return service

    def _service(self) -> Service:
        """The record of this process as the server."""
        return Service(
            pid=os.getpid(),
            process_start=process_start(os.getpid()) or "",
            machine=socket.gethostname(),
            host=self._settings.host,
            port=self._settings.port,
            url=reachable_url(self._settings.host, self._settings.port),
            backend="onnx",
            model_dir=str(self._artifact.folder),
            served_model_name=self._settings.name,
            contract_digest=self._artifact.contract.digest(),
            started=now(),
        )

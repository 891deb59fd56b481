"""Serve an export with the NIM and OpenAI API, in the foreground or in the background."""

from __future__ import annotations

import json
import os
import shlex
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from pipeline.errors import PipelineError
from pipeline.run.progress import duration
from pipeline.run.service import (
    SERVICE_FILE,
    Service,
    forget_service,
    is_alive,
    process_start,
    read_service,
    stop,
    write_service,
)
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.deploy import DeployConfig
from pipeline_deploy.artifacts import Artifact, open_artifact
from pipeline_deploy.families import SERVED, ServedFamily
from pipeline_deploy.launch import end, start_detached, wait_until_ready
from pipeline_deploy.ports import check_port, reachable_url
from pipeline_deploy.server import Settings, serve
from pipeline_deploy.serving import Limits

DEFAULT_NIM_URL = "http://localhost:8000"
"""Where `eval eval_nim=true` looks when it is not told."""


def main(config: DeployConfig, run: StageRun) -> StageResult:
    """Check the model, make room, serve it, and leave a record with which it can be stopped."""
    refuse_what_is_not_here(config)
    family = SERVED[run.family.name]
    artifact = open_artifact(Path(config.model_dir or "").expanduser().resolve(), family.name)
    make_room(run, config.replace_existing)
    check_port(config.bind_address, config.host_port)
    settings = Settings(
        family.name,
        artifact.folder,
        config.bind_address,
        config.host_port,
        config.served_model_name,
        Limits(config.max_request_texts, config.batch_tokens),
        config.threads,
    )
    service = described(settings, artifact)
    if config.detach:
        return in_background(config, run, settings, family, service)
    return in_foreground(run, settings, artifact, family, service)


def refuse_what_is_not_here(config: DeployConfig) -> None:
    if config.backend == "nim":
        raise PipelineError(
            "backend=nim, NVIDIA's container, arrives with a later release",
            fix="set backend=onnx: it serves the same API from the ONNX export, on a CPU, without a container",
        )
    if not config.model_dir:
        raise PipelineError("backend=onnx needs model_dir", fix="set model_dir to the folder of an ONNX export")


def make_room(run: StageRun, replace_existing: bool) -> None:
    """Stop a service of ours that runs in this folder, if that was asked for."""
    running = read_service(run.folder)
    if running is None:
        return
    if not is_alive(running):
        if running.machine != socket.gethostname():
            run.log.warning(f"deploy: the record of a service on {running.machine} is replaced; it may still run there")
        forget_service(run.folder)
        return
    if not replace_existing:
        raise PipelineError(
            f"a service of this run is already at {running.url} (process {running.pid}, since {running.started})",
            fix=f"stop it: {command(run, 'deploy-stop')}; or set replace_existing=true",
        )
    run.log.info(f"deploy: {stop(run.folder)}")


def described(settings: Settings, artifact: Artifact) -> Service:
    """The record of this process as the server."""
    return Service(
        pid=os.getpid(),
        process_start=process_start(os.getpid()) or "",
        machine=socket.gethostname(),
        host=settings.host,
        port=settings.port,
        url=reachable_url(settings.host, settings.port),
        backend="onnx",
        model_dir=str(artifact.folder),
        served_model_name=settings.name,
        contract_digest=artifact.contract.digest(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def in_foreground(
    run: StageRun, settings: Settings, artifact: Artifact, family: ServedFamily, service: Service
) -> StageResult:
    """Serve from this process until it is told to stop."""
    begin = monotonic()

    def announce() -> None:
        write_service(run.folder, service)
        run.log.info(f"deploy: try it:\n{curl_sample(family, service)}")
        run.log.info("deploy: Ctrl-C stops it")

    try:
        serve(settings, artifact, announce)
    finally:
        forget_service(run.folder)
    return StageResult(outputs=[], headline=[*rows(family, service), ("served for", duration(monotonic() - begin))])


def in_background(
    config: DeployConfig, run: StageRun, settings: Settings, family: ServedFamily, service: Service
) -> StageResult:
    """Start a process of its own, wait until it answers, and leave its record."""
    log = (run.folder / "logs" / "server.log").resolve()
    process = start_detached(settings, log)
    service = replace(service, pid=process.pid, process_start=process_start(process.pid) or "", log=str(log))
    write_service(run.folder, service)  # at once: whatever happens to this process, the server can be found and stopped
    try:
        wait_until_ready(
            process,
            service.url,
            log,
            config.health_check_timeout,
            config.health_check_interval,
            config.keep_failed_container,
        )
    except BaseException as error:
        if not (isinstance(error, PipelineError) and process.poll() is None):
            end(process)
            forget_service(run.folder)
        raise
    run.log.info(f"deploy: ready at {service.url} (process {service.pid}); try it:\n{curl_sample(family, service)}")
    address = "" if service.port == 8000 else f" nim_url={service.url}"
    return StageResult(
        outputs=[run.folder / SERVICE_FILE],
        headline=[
            *rows(family, service),
            ("log", str(log)),
            ("status", command(run, "deploy-status")),
            ("stop", command(run, "deploy-stop")),
        ],
        next_command=command(run, "eval") + f" eval_nim=true eval_base=false{address}",
    )


def rows(family: ServedFamily, service: Service) -> list[tuple[str, str]]:
    return [
        ("endpoint", service.url + family.routes[0].path),
        ("model", f"{service.served_model_name} (contract {service.contract_digest}) from {service.model_dir}"),
    ]


def curl_sample(family: ServedFamily, service: Service) -> str:
    body = shlex.quote(json.dumps({"model": service.served_model_name, **family.sample}))
    return f"curl -X POST {service.url}{family.routes[0].path} -H 'Content-Type: application/json' -d {body}"


def command(run: StageRun, verb: str) -> str:
    return f"pipeline {run.family.name} {verb}{run.config_hint}"


def cli() -> None:
    run_stage("deploy", main)


if __name__ == "__main__":
    cli()

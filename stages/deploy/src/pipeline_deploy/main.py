"""Serve an export with the NIM and OpenAI API, in the foreground or in the background."""

from __future__ import annotations

import json
import shlex
import socket
from time import monotonic

from pipeline.errors import PipelineError
from pipeline.run.progress import duration
from pipeline.run.service import SERVICE_FILE, Service, forget_service, is_alive, read_service, stop, write_service
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.deploy import DeployConfig
from pipeline_deploy.backend import Backend
from pipeline_deploy.families import SERVED
from pipeline_deploy.launch import wait_until_ready
from pipeline_deploy.nim import NimContainer
from pipeline_deploy.own import OwnServer

BACKENDS = {"onnx": OwnServer, "nim": NimContainer}


def main(config: DeployConfig, run: StageRun) -> StageResult:
    """Check the model, make room, serve it, and leave a record with which it can be stopped."""
    backend: Backend = BACKENDS[config.backend](config, run)
    before = running_service(run)
    if before and not config.replace_existing:
        raise PipelineError(
            f"a service of this run is already at {before.url} ({before.who}, since {before.started})",
            fix=f"stop it: {command(run, 'deploy-stop')}; or set replace_existing=true",
        )
    backend.prepare()
    if before:
        run.log.info(f"deploy: {stop(run.folder)}")
    return in_background(config, run, backend) if config.detach else in_foreground(run, backend)


def running_service(run: StageRun) -> Service | None:
    """The service that this run's record tells of, if it is still there; a record of one that is gone is removed."""
    recorded = read_service(run.folder)
    if recorded is None or is_alive(recorded):
        return recorded
    if recorded.machine != socket.gethostname():
        run.log.warning(f"deploy: the record of a service on {recorded.machine} is replaced; it may still run there")
        forget_service(run.folder)
    else:
        run.log.info(f"deploy: {stop(run.folder)}")
    return None


def in_foreground(run: StageRun, backend: Backend) -> StageResult:
    """Serve until told to stop; a server that fails by itself gives this process its exit code."""
    begin, served = monotonic(), None

    def started(service: Service) -> None:
        nonlocal served
        served = service
        write_service(run.folder, service)

    def ready(service: Service) -> None:
        started(service)
        run.log.info(f"deploy: try it:\n{curl_sample(run, service)}")
        run.log.info("deploy: Ctrl-C stops it")

    code = backend.serve(started, ready, ended=lambda: forget_service(run.folder))
    if code or served is None:
        run.log.error(f"error: the server ended with exit code {code}; its log is above")
        raise SystemExit(code or 1)
    return StageResult(outputs=[], headline=[*rows(run, served), ("served for", duration(monotonic() - begin))])


def in_background(config: DeployConfig, run: StageRun, backend: Backend) -> StageResult:
    """Start a server of its own, wait until it answers, and leave its record."""
    server, service = backend.start()
    write_service(run.folder, service)  # at once: whatever happens to this process, the server can be found and stopped
    timeout, interval = config.health_check_timeout, config.health_check_interval
    try:
        wait_until_ready(server, service.url, timeout, interval, config.keep_failed_container)
    except BaseException as error:
        if not (isinstance(error, PipelineError) and server.exit_code() is None):
            server.end()
            forget_service(run.folder)
        raise
    service = backend.named(service)
    write_service(run.folder, service)
    run.log.info(f"deploy: ready at {service.url} ({service.who}); try it:\n{curl_sample(run, service)}")
    address = "" if service.port == 8000 else f" nim_url={service.url}"
    return StageResult(
        outputs=[run.folder / SERVICE_FILE],
        headline=[
            *rows(run, service),
            ("log", service.log or command(run, "deploy-logs")),
            ("status", command(run, "deploy-status")),
            ("stop", command(run, "deploy-stop")),
        ],
        next_command=command(run, "eval") + f" eval_nim=true eval_base=false{address}",
    )


def rows(run: StageRun, service: Service) -> list[tuple[str, str]]:
    return [("endpoint", service.url + SERVED[run.family.name].routes[0].path), ("model", service.what)]


def curl_sample(run: StageRun, service: Service) -> str:
    family = SERVED[run.family.name]
    body = shlex.quote(json.dumps({"model": service.served_model_name, **family.sample}))
    return f"curl -X POST {service.url}{family.routes[0].path} -H 'Content-Type: application/json' -d {body}"


def command(run: StageRun, verb: str) -> str:
    return f"pipeline {run.family.name} {verb}{run.config_hint}"


def cli() -> None:
    run_stage("deploy", main)


if __name__ == "__main__":
    cli()

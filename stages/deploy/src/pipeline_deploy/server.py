"""The server process: load the model, warm it up, answer until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from pipeline.errors import PipelineError
from pipeline_deploy.app import create_app
from pipeline_deploy.artifacts import Artifact, open_artifact
from pipeline_deploy.families import SERVED
from pipeline_deploy.ports import bind, reachable_url
from pipeline_deploy.serving import Limits

SECONDS_TO_FINISH = 10
"""How long requests under way may take once the server is asked to stop."""


@dataclass(frozen=True)
class Settings:
    """What to serve, where, and within which limits."""

    family: str
    model_dir: Path
    host: str
    port: int
    name: str
    limits: Limits
    threads: int | None = None

    def arguments(self) -> list[str]:
        """The command line of `python -m pipeline_deploy.server` for these settings."""
        return [
            "--family", self.family, "--model-dir", str(self.model_dir),
            "--host", self.host, "--port", str(self.port), "--name", self.name,
            "--max-request-texts", str(self.limits.request_texts), "--batch-tokens", str(self.limits.batch_tokens),
            "--threads", str(self.threads or 0),
        ]  # fmt: skip

    @classmethod
    def parse(cls, argv: list[str]) -> Settings:
        parser = argparse.ArgumentParser(prog="python -m pipeline_deploy.server", description="Serve an ONNX export.")
        parser.add_argument("--family", choices=list(SERVED), required=True, help="kind of model")
        parser.add_argument("--model-dir", type=Path, required=True)
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--name", default="custom", help="name clients use for the model")
        parser.add_argument("--max-request-texts", type=int, default=Limits.request_texts)
        parser.add_argument("--batch-tokens", type=int, default=Limits.batch_tokens)
        parser.add_argument("--threads", type=int, default=0, help="0: one per physical core")
        given = parser.parse_args(argv)
        limits = Limits(given.max_request_texts, given.batch_tokens)
        place = given.family, given.model_dir, given.host, given.port, given.name
        return cls(*place, limits, given.threads or None)


def serve(settings: Settings, artifact: Artifact, on_ready: Callable[[], None]) -> None:
    """Answer requests until SIGTERM or Ctrl-C; requests under way are finished first.

    Raises:
        PipelineError: the port is taken or the model cannot be loaded.
    """
    log, family = logging.getLogger("pipeline"), SERVED[settings.family]
    with bind(settings.host, settings.port) as listener:
        model = family.load(artifact.folder, settings.threads)
        family.warm_up(model)
        app = create_app(family, artifact, model, settings.name, settings.limits)
        log.info(f"deploy: {settings.name} ready at {reachable_url(settings.host, settings.port)}")
        _Server(app, on_ready).run(sockets=[listener])
    log.info("deploy: stopped")


class _Server(uvicorn.Server):
    """uvicorn that says when it listens, and for which a signal is the ordinary end, not an error."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=SECONDS_TO_FINISH
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would raise the signal again after its clean end; the stage still has its manifest to write.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def main() -> None:
    """Entry of the detached process; its output is the service's log."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )
    settings = Settings.parse(sys.argv[1:])
    try:
        serve(settings, open_artifact(settings.model_dir, settings.family), on_ready=lambda: None)
    except PipelineError as error:
        logging.getLogger("pipeline").error("error: %s", error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

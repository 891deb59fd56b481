"""What a backend of deploy can do; `own.py` and `nim.py` are the two."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from pipeline.run.service import Service
from pipeline_deploy.launch import Server


class Backend(Protocol):
    """A checked model, and a way to serve it. Made from the configuration; that alone touches nothing."""

    def prepare(self) -> None:
        """Check and fetch what takes long, while the service before may still run.

        Raises:
            PipelineError: the service could not be started.
        """

    def start(self) -> tuple[Server, Service]:
        """Start in the background; returns at once with the server and its record."""

    def serve(
        self, started: Callable[[Service], None], ready: Callable[[Service], None], ended: Callable[[], None]
    ) -> int:
        """Serve until a signal asks to end; returns the exit code for the stage.

        `started` is called when there is a server that could be stopped, `ready` when it answers, `ended` once it is
        gone for certain.
        """

    def named(self, service: Service) -> Service:
        """The record of a server that answers, under the name by which clients must call its model."""


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")

"""What is known of the served models, also when one fails in the middle of its measurement."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.results import VARIANT
from pipeline_eval.endpoints.clients import Client

SERVED = "nim"
ENDPOINTS = "nim_endpoints"
"""In `_metadata`: what is known of each service of `nim_urls`, by system."""


def called(system: str) -> str:
    """`nim` -> served model, `nim@gpu7` -> served model gpu7."""
    return f"served model {system.partition(VARIANT)[2]}".rstrip()


class Served:
    """`clients` by system; none in a run that asks for no service.

    Attributes:
        failures: system -> why it could not be measured.
    """

    def __init__(self, clients: Mapping[str, Client[Any]]) -> None:
        self._clients = clients
        self.failures: dict[str, str] = {}

    @property
    def working(self) -> list[str]:
        """The services of this run that have not failed."""
        return [system for system in self._clients if system not in self.failures]

    def connect(self) -> None:
        """Look at every service before any long work; one of several that is not there costs its own numbers alone.

        Raises:
            PipelineError: none of them is ready.
        """
        problems: list[PipelineError] = []
        for system, client in self._clients.items():
            try:
                client.connect()
            except PipelineError as error:
                problems.append(error)
                self._note(system, error)
        if problems and len(problems) == len(self._clients):
            if len(problems) == 1:
                raise problems[0]
            raise PipelineError("; ".join(self.failures.values()))
        for failure in self.failures.values():
            logging.getLogger("pipeline").warning(f"{failure}; the others are measured")

    @contextmanager
    def keep_failure(self, system: str) -> Iterator[None]:
        """A service that fails costs its own numbers alone: everything else is compared, saved and shown first."""
        try:
            yield
        except PipelineError as error:
            self._note(system, error)
            logging.getLogger("pipeline").warning(
                f"the {called(system)} failed: the others are compared and saved first"
            )

    def _note(self, system: str, error: PipelineError) -> None:
        fix = f" ({error.fix})" if error.fix else ""
        self.failures[system] = f"the {called(system)} could not be measured: {error.message}{fix}"

    def diagnostics(self, earlier: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
        """System -> what its client saw, and why it failed; of others what the `earlier` metadata tells."""
        before = {name: known["nim_diagnostics"] for name, known in earlier.get(ENDPOINTS, {}).items()}
        seen = {
            system: client.diagnostics | ({"error": self.failures[system]} if system in self.failures else {})
            for system, client in self._clients.items()
        }
        return {SERVED: earlier.get("nim_diagnostics"), **before, **seen}

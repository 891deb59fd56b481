"""What is known of the served model, also when it fails in the middle of its measurement."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import PipelineError
from pipeline_eval.endpoints.clients import Client


class Served:
    """`client` is None in a run that does not ask for the service; `earlier` is what the last one that did saw."""

    def __init__(self, client: Client[Any] | None, earlier: dict[str, Any] | None) -> None:
        self._client, self._earlier = client, earlier
        self.failure: str | None = None

    @contextmanager
    def keep_failure(self) -> Iterator[None]:
        """A service that fails costs its own numbers alone: everything else is compared, saved and shown first."""
        try:
            yield
        except PipelineError as error:
            fix = f" ({error.fix})" if error.fix else ""
            self.failure = f"the served model could not be measured: {error.message}{fix}"
            logging.getLogger("pipeline").warning("the served model failed: the others are compared and saved first")

    @property
    def diagnostics(self) -> dict[str, Any] | None:
        """For `nim_diagnostics`: what the client saw, and why it failed."""
        if self._client is None:
            return self._earlier
        return self._client.diagnostics | ({"error": self.failure} if self.failure else {})

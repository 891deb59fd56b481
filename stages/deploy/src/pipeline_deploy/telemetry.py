"""What the service counts, and the outer layer that counts it."""

from __future__ import annotations

import logging
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Telemetry:
    """Prometheus series of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("pipeline_requests", "Requests.", ["path", "status"], **own)
        self.seconds = Histogram("pipeline_request_seconds", "Time to answer.", ["path"], buckets=_SECONDS, **own)
        self.texts = Counter("pipeline_texts", "Texts (or pairs) computed.", ["input_type"], **own)
        self.tokens = Counter("pipeline_tokens", "Tokens computed.", ["input_type"], **own)


class Outermost:
    """Counts every request, and logs those that fail."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, paths: frozenset[str]) -> None:
        self.app, self.telemetry, self.paths = app, telemetry, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500  # stays when the application dies before it answers
        begin = time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - begin
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.telemetry.requests.labels(path, str(status)).inc()
            self.telemetry.seconds.labels(path).observe(seconds)
            level = logging.INFO if status >= 400 else logging.DEBUG  # the good ones are counted in /metrics
            line = f"{scope['method']} {scope['path']} {status} {seconds * 1000:.0f} ms"
            logging.getLogger("pipeline").log(level, line)

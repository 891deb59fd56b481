"""Small inputs of the eval tests: a tiny corpus, a served model that misbehaves on demand, what was logged."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.records.beir import TestSet, write_beir
from pipeline.records.passages import Passage

DOCUMENTS = {
    "pump.md": "The lift pump runs at 40 bar. Replace its seal every 900 hours. The seal kit has the code SK-12.",
    "lamp.md": "The lamp chamber kills germs with ultraviolet light. A lamp lasts 8000 hours.",
    "cistern.md": "The cistern holds 1200 litres. Alarm C-7 says that the float is stuck. Rinse it with vinegar.",
    "sail.md": "A sail bank catches fog. Grey sails and amber sails are never mixed. Sails are furled above 18 m/s.",
    "doser.md": "The mineral doser adds calcium. Fill the hopper each Monday. Alarm D-3 says that the hopper is empty.",
    "mast.md": "The mast winch hoists the sails. It may run for twelve minutes in any hour. The drum gives 720 pulses.",
}
QUESTIONS = {
    "q1": ("how often do I change the pump seal", "pump.md", "Replace its seal every 900 hours"),
    "q2": ("life of the UV lamp", "lamp.md", "A lamp lasts 8000 hours"),
    "q3": ("float hangs, what is the alarm", "cistern.md", "Alarm C-7 says that the float is stuck"),
    "q4": ("too windy for the nets?", "sail.md", "Sails are furled above 18 m/s"),
    "q5": ("D-3", "doser.md", "Alarm D-3 says that the hopper is empty"),
    "q6": ("how long can the hoist work without a rest", "mast.md", "twelve minutes in any hour"),
}


@pytest.fixture
def tiny() -> TestSet:
    """Six passages of six documents and a question about each."""
    corpus = {name: Passage(f"d_{i}", text, "", (name,)) for i, (name, text) in enumerate(DOCUMENTS.items())}
    return TestSet(
        "synthetic",
        {item.id: item for item in corpus.values()},
        {query: text for query, (text, _, _) in QUESTIONS.items()},
        {query: {corpus[doc].id: 1} for query, (_, doc, _) in QUESTIONS.items()},
    )


@pytest.fixture
def run_dir(tmp_path: Path, tiny: TestSet) -> Path:
    """A run directory as prep leaves it, with the documents and a question set beside it."""
    write_beir(tmp_path / "stage1_data_prep" / "eval_beir", tiny)
    (tmp_path / "documents").mkdir()
    for name, text in DOCUMENTS.items():
        (tmp_path / "documents" / name).write_text(text)
    with (tmp_path / "people.jsonl").open("w") as stream:
        for query, (text, doc, quote) in QUESTIONS.items():
            stream.write(json.dumps({"_id": query, "text": text, "doc": doc, "quote": quote}) + "\n")
    return tmp_path


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Every line the `pipeline` logger was given during the test."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("pipeline"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


Answer = Callable[[dict[str, Any], int], tuple[int, Any, dict[str, str]]]
"""(request body, number of the request from 0) -> (status, body, headers)."""


class Service:
    """A real HTTP server with the API of an embedding service. `answer` decides each reply to /v1/embeddings."""

    def __init__(self, answer: Answer, models: list[str], ready: int = 200) -> None:
        self.requests: list[dict[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/v1/models":
                    self._reply(200, {"data": [{"id": name} for name in models]}, {})
                else:
                    self._reply(ready if self.path == "/v1/health/ready" else 404, {}, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.requests.append(body)
                self._reply(*answer(body, len(service.requests) - 1))

            def _reply(self, status: int, body: Any, headers: dict[str, str]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """serve(answer, models=["custom"], ready=200) starts a service that stops with the test."""
    started: list[Service] = []

    def start(answer: Answer, models: tuple[str, ...] = ("custom",), ready: int = 200) -> Service:
        started.append(Service(answer, list(models), ready))
        return started[-1]

    yield start
    for service in started:
        service.stop()

"""Small inputs of the eval tests: a tiny corpus, a served model that misbehaves on demand, what was logged."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract
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


def _tiny_bert(folder: Path, kind: type, seed: int) -> Path:
    """A random two-layer BERT under MiniLM's tokenizer: everything a real one has, in milliseconds."""
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=1,
        max_position_embeddings=64,
    )  # fmt: skip
    kind(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_model("embedded:all-MiniLM-L6-v2")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A body without a head and without a contract."""
    return _tiny_bert(tmp_path_factory.mktemp("body"), BertModel, 0)


@pytest.fixture(scope="session")
def tiny_reranker(tmp_path_factory) -> Path:
    """A reranker with a head of its own, under the contract that finetune would write."""
    folder = _tiny_bert(tmp_path_factory.mktemp("reranker"), BertForSequenceClassification, 1)
    EncodingContract("rerank", str(folder), rerank_max_length=32).save(folder)
    return folder


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
    """A real HTTP server with the API of a model. `answer` decides each reply to a POST; bytes are sent as they are.

    `pages`: path -> body, or status, of the GETs it answers beside /v1/health/ready; without it /v1/models alone.
    `paths` and `keys` are the POSTs' paths and authorization headers.
    """

    def __init__(self, answer: Answer, models: list[str], ready: int = 200, pages: dict[str, Any] | None = None):
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        known = {"/v1/models": {"data": [{"id": name} for name in models]}} if pages is None else pages
        service, numbers = self, itertools.count()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path in known:
                    found = known[self.path]
                    self._reply(*((found, {}, {}) if isinstance(found, int) else (200, found, {})))
                else:
                    self._reply(ready if self.path == "/v1/health/ready" else 404, {}, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.requests.append(body)
                service.paths.append(self.path)
                service.keys.append(self.headers["authorization"])
                self._reply(*answer(body, next(numbers)))

            def _reply(self, status: int, body: Any, headers: dict[str, str]) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"content-length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a client that waits no longer
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
    """serve(answer, models=["custom"], ready=200, pages=None) starts a service that stops with the test."""
    started: list[Service] = []

    def start(
        answer: Answer, models: tuple[str, ...] = ("custom",), ready: int = 200, pages: dict[str, Any] | None = None
    ) -> Service:
        started.append(Service(answer, list(models), ready, pages))
        return started[-1]

    yield start
    for service in started:
        service.stop()

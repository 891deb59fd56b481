"""The batch API, against a small server of our own that keeps files and batches."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pipeline_sdg.calls import batch, batch_client
from pipeline_sdg.endpoints import QA
from pipeline_sdg.generation import each
from pipeline_sdg.llm import Caller, CallFailed, CallOptions

from pipeline.errors import PipelineError

SCHEMA = {"type": "object", "properties": {"ok": {"type": "string"}}}


class BatchServer:
    """Completes a batch at its second retrieval. `answers(body)` gives (status, body of the answer) or None."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.answers: Callable[[dict[str, Any]], tuple[int, Any] | None] = lambda body: (200, completion("yes"))
        self.paid: list[str] = []
        self.refuse: set[tuple[str, str]] = set()
        """Requests (method, path) answered with 404."""
        self.status = "completed"
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer("GET", b"")

            def do_POST(self) -> None:
                self._answer("POST", self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, method: str, body: bytes) -> None:
                path = self.path.partition("?")[0].removeprefix("/v1")
                found = None if (method, path) in server.refuse else server.handle(method, path, body)
                payload = found if isinstance(found, bytes) else json.dumps(found or {}).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, method: str, path: str, body: bytes) -> Any:
        if (method, path) == ("POST", "/files"):
            name = f"file-{len(self.files)}"
            self.files[name] = b"\n".join(line for line in body.splitlines() if line.startswith(b'{"custom_id"'))
            about = {"object": "file", "bytes": len(body), "created_at": 0, "filename": "x", "purpose": "batch"}
            return {"id": name, "status": "processed", **about}
        if (method, path) == ("POST", "/batches"):
            return self._order(json.loads(body))
        if (method, path) == ("GET", "/batches"):
            return {"object": "list", "data": list(self.batches.values()), "has_more": False}
        if path.startswith("/batches/"):
            found = self.batches[path.removeprefix("/batches/")]
            shown = dict(found)
            found["status"] = self.status
            return shown
        if path.endswith("/content"):
            return self.files[path.split("/")[2]]
        return None

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        name, lines = f"batch-{len(self.batches)}", []
        for line in self.files[order["input_file_id"]].splitlines():
            request = json.loads(line)
            found = self.answers(request["body"])
            if found:
                self.paid.append(request["custom_id"])
                response = {"status_code": found[0], "request_id": "r", "body": found[1]}
                lines.append(json.dumps({"id": "x", "custom_id": request["custom_id"], "response": response}))
        self.files[f"out-{name}"] = "\n".join(lines).encode()
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "completion_window": "24h",
            "created_at": 0,
            "endpoint": order["endpoint"],
            "input_file_id": order["input_file_id"],
            "metadata": order["metadata"],
            "status": "in_progress",
            "output_file_id": f"out-{name}",
        }
        return self.batches[name]


def completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setattr(batch, "QUIET_SECONDS", 0.02)
    monkeypatch.setattr(batch_client, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(batch_client, "_TRIES", 0)
    found = BatchServer()
    yield found
    found.close()


@pytest.fixture
def options(tmp_path: Path) -> CallOptions:
    return CallOptions(batch_folder=tmp_path / "batches", max_tokens_total=100_000)


async def ask_ten(caller: Caller) -> dict[str, Any]:
    replies: dict[str, Any] = {}

    async def one(text: str) -> None:
        try:
            replies[text] = (await caller.chat(QA, [{"role": "user", "content": text}], SCHEMA)).text
        except CallFailed as error:
            replies[text] = error

    await each([f"question {number}" for number in range(10)], one, 10)
    return {"replies": replies, "usage": caller.usage[QA]}


def test_calls_go_up_in_one_file_and_come_back_into_the_journal(
    calling: Any, server: BatchServer, options: CallOptions
) -> None:
    for made, reused in ((10, 0), (0, 10)):
        found = calling(ask_ten, server.url, options)
        assert set(found["replies"].values()) == {"yes"}
        assert (found["usage"].calls_made, found["usage"].calls_reused) == (made, reused)
    assert len(server.batches) == 1 and len(server.paid) == 10
    request = json.loads(server.files["file-0"].splitlines()[0])
    assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
    assert request["body"]["response_format"]["type"] == "json_schema" and request["body"]["seed"] == 1
    assert options.batch_folder is not None and not list(options.batch_folder.iterdir())


def test_requests_that_failed_in_a_batch_fail_alone(calling: Any, server: BatchServer, options: CallOptions) -> None:
    wrong: dict[str, Any] = {"question 1": (500, {"error": "oops"}), "question 2": None, "question 3": (200, {})}
    server.answers = lambda body: wrong.get(body["messages"][0]["content"], (200, completion("yes")))
    replies = calling(ask_ten, server.url, options)["replies"]
    failed = {text: str(reply) for text, reply in replies.items() if isinstance(reply, CallFailed)}
    assert sorted(failed) == sorted(wrong)
    assert "HTTP 500" in failed["question 1"] and "without an answer" in failed["question 2"]
    server.answers = lambda body: (200, completion("yes"))
    assert calling(ask_ten, server.url, options)["usage"].calls_made == 3


STEPS = [("POST", "/files"), ("POST", "/batches"), ("GET", "/batches/batch-0"), ("GET", "/files/out-batch-0/content")]


@pytest.mark.parametrize("step", STEPS, ids=[" ".join(step) for step in STEPS])
def test_whatever_was_interrupted_is_found_again_and_paid_for_once(
    calling: Any, server: BatchServer, options: CallOptions, step: tuple[str, str]
) -> None:
    server.refuse = {step}
    with pytest.raises(PipelineError, match="no batch API"):
        calling(ask_ten, server.url, options)
    server.refuse = set()
    found = calling(ask_ten, server.url, options)
    assert set(found["replies"].values()) == {"yes"}
    assert found["usage"].calls_reused == 10  # fetched before the first call
    assert len(server.batches) == 1 and len(server.paid) == 10


def test_a_batch_ordered_but_not_noted_is_not_ordered_again(
    calling: Any, server: BatchServer, options: CallOptions
) -> None:
    server.refuse = {("GET", "/batches/batch-0")}
    with pytest.raises(PipelineError):
        calling(ask_ten, server.url, options)
    assert options.batch_folder is not None
    [state] = options.batch_folder.glob("*.json")
    state.write_text(json.dumps({"role": QA}))  # as a kill between the order and the note leaves it
    server.refuse = set()
    calling(ask_ten, server.url, options)
    assert len(server.batches) == 1


def test_a_batch_that_failed_as_a_whole_is_a_counted_failure(
    calling: Any, server: BatchServer, options: CallOptions
) -> None:
    server.status = "expired"
    server.answers = lambda body: None
    original = server._order

    def order(request: dict[str, Any]) -> dict[str, Any]:
        made = original(request)
        del made["output_file_id"]
        return made

    server._order = order  # type: ignore[method-assign]
    found = calling(ask_ten, server.url, options)
    assert all("is expired" in str(reply) for reply in found["replies"].values())
    assert found["usage"].calls_failed == 10
    assert options.batch_folder is not None and not list(options.batch_folder.iterdir())

"""A key is nowhere but in its variable and in the request: in no file, no log, no prompt, no command line."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pipeline_sdg.calls import batch, batch_client
from pipeline_sdg.main import cli

from pipeline.config import resolve
from pipeline.run.handoff import write_handoff

CANARY = "canary-key-9876543210"
NAME = "SDG_TEST_KEY"


def about(tmp_path: Path, corpus: Path, endpoint: Any) -> list[str]:
    where = [f"run_dir={tmp_path / 'run'}", f"corpus_dir={corpus}", f"base_url={endpoint.url}", "provider=test"]
    return [*where, "num_pairs=2", "max_retries=1"]


@pytest.fixture
def talkative(endpoint: Any) -> Any:
    """The endpoint, which says the key in an error, in a question's answer, in a reason and in what is no answer."""
    usual = endpoint.content

    def misbehave(body: dict[str, Any], number: int) -> Any:
        prompt = json.dumps(body.get("messages", ""))
        if "beta valve" in prompt and "You judge" in prompt:
            return 400, {"X-Echo": CANARY}, f"{CANARY} may not ask this"
        return (200, {}, endpoint.chat(f"what {CANARY} wants")) if "gamma valve" in prompt else None

    def content(role: str, body: dict[str, Any]) -> str:
        return usual(role, body).replace("Three bar.", f"Three bar for {CANARY}.").replace("because", CANARY)

    endpoint.misbehave, endpoint.content = misbehave, content
    return endpoint


def run_as_a_process_would(overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage's entry, with a verbose log and the key in its variable."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handler of a stage would outlive the test
    monkeypatch.setenv(NAME, CANARY)
    about_key = [*overrides, f"api_key_env={NAME}"]
    handoff = write_handoff(resolve("embed", "sdg", "default", about_key), tmp_path / "handoff.yaml")
    monkeypatch.setattr(sys, "argv", ["pipeline-sdg", "--config", str(handoff), "--verbose"])
    with pytest.raises(SystemExit):
        cli()


def holding_the_key(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize("part", [(), ("preview=true",), ("shard=1/2",), ("resume=never", "max_tokens_total=1200")])
def test_no_file_and_no_line_holds_the_key(
    talkative: Any,
    corpus: Path,
    tmp_path: Path,
    part: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    overrides = [*about(tmp_path, corpus, talkative), "check_answers=true", *part]
    run_as_a_process_would(overrides, tmp_path, monkeypatch)
    sent = {item.pop("authorization") for item in talkative.headers}
    assert sent == {f"Bearer {CANARY}"}
    assert CANARY not in json.dumps([talkative.headers, talkative.requests])
    assert not [text for text in capfd.readouterr() if CANARY in text]
    assert [*tmp_path.rglob("journal.sqlite")] and [*tmp_path.rglob("usage.json")] and [*tmp_path.rglob("*.log")]
    assert holding_the_key(tmp_path) == []


class Batches(BaseHTTPRequestHandler):
    """A batch API whose every answer, good or bad, repeats the key."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path.endswith("/files"):
            self.asked[:] = re.findall(r'"custom_id": ?"(\w+)"', body)
            about = {"object": "file", "bytes": 1, "created_at": 0, "filename": "x", "purpose": "batch"}
            return self.answer(json.dumps({"id": "file-1", "status": "processed", **about}))
        return self.answer(json.dumps(self.state()))

    def do_GET(self) -> None:
        if self.path.endswith("/content"):
            return self.answer("\n".join(self.line(number, name) for number, name in enumerate(self.asked)))
        if "/batches/" in self.path:
            return self.answer(json.dumps(self.state()))
        return self.answer(json.dumps({"object": "list", "data": [], "has_more": False}))

    def line(self, number: int, name: str) -> str:
        said = {"choices": [{"index": 0, "message": {"content": f"for {CANARY}"}, "finish_reason": "stop"}]}
        status, body = (400, {"error": f"{CANARY} must not"}) if number == 0 else (200, said)
        return json.dumps({"custom_id": name, "response": {"status_code": status, "request_id": CANARY, "body": body}})

    def state(self) -> dict[str, Any]:
        about = {"object": "batch", "completion_window": "24h", "created_at": 0, "endpoint": "/v1/chat/completions"}
        files = {"input_file_id": "file-1", "output_file_id": "file-2"}
        return {"id": "batch-1", "status": "completed", "metadata": {"echo": CANARY}, **about, **files}

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(batch, "QUIET_SECONDS", 0.02)
    monkeypatch.setattr(batch_client, "POLL_SECONDS", 0.01)
    server = HTTPServer(("127.0.0.1", 0), Batches)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_no_file_of_the_batch_api_holds_the_key(
    batches: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    where = [f"run_dir={tmp_path / 'run'}", f"corpus_dir={corpus}", f"base_url={batches}", "provider=test"]
    shape = ["batch_api=true", "embed_model=null", "repair=false", "artifacts=false", "num_pairs=1"]
    run_as_a_process_would([*where, *shape], tmp_path, monkeypatch)
    assert Batches.asked and [*tmp_path.rglob("journal.sqlite")]
    [ledger] = tmp_path.rglob("rejected.jsonl")
    assert "must not" in ledger.read_text() and '"for ' in ledger.read_text()
    assert holding_the_key(tmp_path) == [] and not [text for text in capfd.readouterr() if CANARY in text]


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("by_variable", [True, False])
def test_no_process_is_given_the_key_on_its_command_line(
    endpoint: Any, corpus: Path, tmp_path: Path, by_variable: bool
) -> None:
    """From the `pipeline` command down. Who writes the key after the command shows it there himself, and only there."""
    listed: list[str] = []

    def look(body: dict[str, Any], number: int) -> None:
        found = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
        listed.extend(line for line in found.splitlines() if CANARY in line or str(tmp_path) in line)

    endpoint.misbehave = look
    key = f"api_key_env={NAME}" if by_variable else f"nvidia_api_key={CANARY}"
    named = about(tmp_path, corpus, endpoint)
    if not by_variable:
        named = [*(item for item in named if item != "provider=test"), "provider=nvidia", "api_key_env=NVIDIA_API_KEY"]
    command = [sys.executable, "-m", "pipeline", "embed", "sdg", "-c", "default", *named, key]
    environment = {**os.environ, **({NAME: CANARY} if by_variable else {})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    said = "".join(process.communicate(timeout=300))
    assert process.returncode == 0, said
    assert {item["authorization"] for item in endpoint.headers} == {f"Bearer {CANARY}"}
    ours = [line for line in listed if int(line.split()[0]) != process.pid]
    assert any("pipeline-sdg --config" in line for line in ours) and not any(CANARY in line for line in ours)
    assert CANARY not in said
    assert holding_the_key(tmp_path) == []

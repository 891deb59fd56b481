"""A key is nowhere but in its variable and in the request: in no file, no log, no prompt, no command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
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


@pytest.mark.parametrize("part", [(), ("preview=true",), ("shard=1/2",), ("resume=never", "max_tokens_total=1200")])
def test_no_file_and_no_line_holds_the_key(
    talkative: Any,
    corpus: Path,
    tmp_path: Path,
    part: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handler of a stage would outlive the test
    monkeypatch.setenv(NAME, CANARY)
    overrides = [*about(tmp_path, corpus, talkative), f"api_key_env={NAME}", "check_answers=true", *part]
    handoff = write_handoff(resolve("embed", "sdg", "default", overrides), tmp_path / "handoff.yaml")
    monkeypatch.setattr(sys, "argv", ["pipeline-sdg", "--config", str(handoff), "--verbose"])
    with pytest.raises(SystemExit):
        cli()
    sent = {item.pop("authorization") for item in talkative.headers}
    assert sent == {f"Bearer {CANARY}"}
    assert CANARY not in json.dumps([talkative.headers, talkative.requests])
    assert not [text for text in capfd.readouterr() if CANARY in text]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name.startswith("journal.sqlite") for path in written)
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []


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
    assert [path for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()] == []

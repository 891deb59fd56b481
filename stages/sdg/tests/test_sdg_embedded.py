"""The embedded LLM for real."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline_sdg.main import main

from pipeline.config import resolve
from pipeline.records.sdg import read_records
from pipeline.run.stage import execute

DOCUMENTS = {
    "pump.md": "# Lift pump\n\nThe lift pump moves raw water from the cup to the filter. Alarm L-404 means that the "
    "pump runs but the level does not sink. Rinse the rotor with warm water every 12 weeks.",
    "lamp.md": "# Lamp\n\nThe lamp must cool for 20 minutes before it is started again. The quartz sleeve is cleaned "
    "with vinegar because chalk blocks the light.",
}
SERVE = """
import sys, time
from pipeline.assets import weights_file
from pipeline_sdg.embedded import embedded_server
from pipeline_sdg.endpoints import EMBEDDED_MODEL
with embedded_server(weights_file(EMBEDDED_MODEL), 1, 1) as url:
    print(url, flush=True)
    time.sleep(120)
"""


@pytest.mark.slow
def test_two_documents_give_checked_questions_and_a_second_run_calls_nothing(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for name, text in DOCUMENTS.items():
        (tmp_path / "corpus" / name).write_text(text)
    resolved = resolve("embed", "sdg", "demo", [f"run_dir={tmp_path}", f"corpus_dir={tmp_path / 'corpus'}"])
    assert execute(resolved, main) is None
    folder = tmp_path / "stage0_sdg"
    found = [record for _, record in read_records(folder)]
    assert [record["file_name"] for record in found] == [["lamp.md"], ["pump.md"]]
    pairs = [pair for record in found for pair in record["deduplicated_qa_pairs"]]
    assert pairs
    assert all(pair["answer"] in DOCUMENTS["lamp.md"] + DOCUMENTS["pump.md"] for pair in pairs)
    assert execute(resolved, main) is None
    assert json.loads((folder / "usage.json").read_text())["total"]["calls_made"] == 0


@pytest.mark.slow
def test_a_killed_process_leaves_no_server_behind_and_the_server_is_silent(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    port = int(process.stdout.readline().strip().removesuffix("/v1").rsplit(":", 1)[1])
    assert reachable(port)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while reachable(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not reachable(port)
    assert process.stderr.read() == ""


def reachable(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


CALL_FOR_EVER = """
import asyncio, sys, openai
from pipeline.assets import weights_file
from pipeline_sdg.embedded import embedded_server
from pipeline_sdg.endpoints import EMBEDDED_MODEL

async def calls(url):
    client = openai.AsyncOpenAI(base_url=url, api_key="none")
    ask = lambda: client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Count to a million."}], max_tokens=1500)
    waiting = [asyncio.ensure_future(ask()) for _ in range(2)]
    await asyncio.sleep(2)
    print(url, flush=True)
    await asyncio.gather(*waiting)

with embedded_server(weights_file(EMBEDDED_MODEL), 2, 1) as url:
    asyncio.run(calls(url))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_stage_ends_while_calls_are_under_way(number: signal.Signals) -> None:
    handlers = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # else ignored in the background
    )
    program = handlers + CALL_FOR_EVER
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = int(process.stdout.readline().strip().removesuffix("/v1").rsplit(":", 1)[1])
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (143, 1, -signal.SIGINT, 130), errors
    assert not reachable(port)

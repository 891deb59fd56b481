"""`kill -9` at ten moments, then to the end: no call is paid for twice, and the output is that of a quiet run."""

import base64
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import resolve
from pipeline.run.handoff import write_handoff

MOMENTS = 8
"""Kills while calls are made; two more follow while files are written."""
WRITING = ("generated_batch1_", "rejected.jsonl")
WAIT_SECONDS = 60
EVERYTHING = (
    "num_pairs=2", "query_counts={multi_hop: 1, contextual: 1}", "reasoning_counts={factual: 1}", "batch_size=1",
    "check_answers=true", "hop_check=keep", "pooled_judging=2", "max_retries=1", "allow_remote=no", "provider=test",
)  # fmt: skip
OF_ONE_RUN = ("usage.json", "manifest.json", "journal", "logs/", ".")
"""Files whose names begin so tell of one run, not of its result."""

# The stage's own process. With a second argument it kills itself before a file of that name takes its place.
_PROGRAM = """
import os, signal, sys
from pathlib import Path
from pipeline.run import files
from pipeline_sdg import main
if len(sys.argv) > 2:
    name, replace = sys.argv.pop(), os.replace
    def replaced(source, target):
        if Path(target).name.startswith(name):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    files.os.replace = replaced
sys.argv[1:1] = ["--config"]
main.cli()
"""


class Stage:
    """A run directory; every command is a process of its own."""

    def __init__(self, root: Path, corpus: Path, url: str, parallel: int) -> None:
        self.folder, self._handoff = root / "stage0_sdg", root / "handoff.yaml"
        about = [f"run_dir={root}", f"corpus_dir={corpus}", f"base_url={url}"]
        settled = resolve("embed", "sdg", "default", [*about, *EVERYTHING, f"max_parallel_requests_for_gen={parallel}"])
        root.mkdir()
        write_handoff(settled, self._handoff)

    def run(self, *more: str) -> int:
        """To its end, whatever that is; the exit status (of a signal: negative)."""
        command = [sys.executable, "-c", _PROGRAM, str(self._handoff), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        _, self.said = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode

    def answers_on_disk(self) -> set[str]:
        try:
            with sqlite3.connect(f"file:{self.folder / 'journal.sqlite'}?mode=ro", uri=True) as journal:
                return {answer for (answer,) in journal.execute("SELECT answer FROM calls")}
        except sqlite3.OperationalError:  # not made yet
            return set()

    def outputs(self) -> dict[str, bytes]:
        found = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if not name.startswith(OF_ONE_RUN)}


class Server:
    """The endpoint: the same request always gets the same answer, another request another one.

    `paid` counts the answers by request; `lost` counts those that a killed run had not yet written down.
    """

    def __init__(self, endpoint: Any) -> None:
        self.url = endpoint.url
        self.asked: list[str] = []
        self.paid: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.before_answer: Callable[[], bool] = lambda: True
        """Called before each answer; False: there will be none."""
        self._answers: dict[str, set[str]] = {}
        self._under_way, self._changed = 0, threading.Condition()
        self._handle, self._content = endpoint.handle, endpoint.content
        endpoint.handle, endpoint.content, endpoint.delay = self.handle, self.content, 0.005

    def handle(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
        request = json.dumps(body, sort_keys=True)
        with self._changed:
            self.asked.append(request)
            self._under_way += 1
        try:
            if not self.before_answer():
                return 500, {}, "{}"
            answer = self._handle(path, body, headers)
            with self._changed:
                self.paid[request] = self.paid.get(request, 0) + 1
                self._answers[request] = parts_of(json.loads(answer[2]))
            return answer
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def content(self, role: str, body: dict[str, Any]) -> str:
        value = json.loads(self._content(role, body))
        if role == "qa_generation":
            faulty(value["pairs"], body["messages"])
        mark = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()
        return json.dumps({**value, "mark": mark})

    def written_down(self, on_disk: set[str]) -> set[str]:
        """The requests whose answers are all in a journal."""
        return {request for request, answers in self._answers.items() if answers <= on_disk}

    def note_lost(self, on_disk: set[str]) -> None:
        """After a kill: wait until nothing is under way, then see what was answered and is not on the disk."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._under_way == 0, WAIT_SECONDS)
        for request in set(self.paid) - self.written_down(on_disk):
            self.lost[request] = self.lost.get(request, 0) + 1


def parts_of(answer: dict[str, Any]) -> set[str]:
    """What of an answer stands in the journal: the text, or each vector."""
    if "choices" in answer:
        return {answer["choices"][0]["message"]["content"]}
    vectors = (np.asarray(item["embedding"], dtype="<f4") for item in answer["data"])
    return {base64.b64encode(vector.tobytes()).decode() for vector in vectors}


def faulty(pairs: list[dict[str, Any]], messages: list[dict[str, str]]) -> None:
    """Every window has a pair of two hops, two ask the same; one is mended when told so, one never is."""
    hops = [{"hop_number": number, "segment_ids": [number], "summary": f"valve {number}"} for number in (1, 2)]
    pairs[0] |= {"query_type": "multi_hop", "segment_ids": [1, 2], "hop_count": 2, "hop_contexts": hops}
    pairs[1] |= {"query_type": "contextual", "hop_count": 1, "hop_contexts": []}
    document = messages[0]["content"]
    if "alpha valve" in document or "gamma valve" in document:
        pairs[0]["question"] = "Which pressure opens the valve of the second unit before the others?"
    if "gamma valve" in document or ("beta valve" in document and len(messages) == 1):
        pairs[1]["segment_ids"] = [99]


@pytest.fixture
def server(endpoint: Any) -> Server:
    return Server(endpoint)


@pytest.fixture
def quiet(tmp_path: Path, corpus: Path, server: Server) -> dict[str, bytes]:
    """The output of a run that nobody disturbs; what it paid is forgotten."""
    stage = Stage(tmp_path / "quiet", corpus, server.url, 4)
    assert stage.run() == 0, stage.said
    assert set(server.paid.values()) == {1}
    return stage.outputs()


@pytest.fixture
def moments(quiet: dict[str, bytes], server: Server) -> list[int]:
    """Numbers of answers after which to kill: the first call, and others by chance."""
    total = len(server.paid)
    server.paid.clear(), server.asked.clear()
    return [0, *sorted(random.Random(7).sample(range(1, total), MOMENTS - 1))]


def killed_while_writing(stage: Stage) -> None:
    for name in WRITING:
        assert stage.run(name) == -signal.SIGKILL, stage.said
        assert not (stage.folder / "manifest.json").exists()


def test_the_quiet_run_has_every_kind_of_call_repair_and_rejection(quiet: dict[str, bytes], server: Server) -> None:
    lines = [json.loads(line) for line in quiet["rejected.jsonl"].splitlines()]
    assert {line["role"] for line in lines} == {"qa_generation", "dedup"}
    assert sum('"role": "assistant"' in request for request in server.paid) == 2
    prompts = " ".join(server.paid)
    for words in ("WRITTEN ANSWER", "hops_needed", "and a grade:", "You judge", "input"):
        assert words in prompts
    assert sum(name.startswith("generated_batch") for name in quiet) == 3


def test_ten_kills_between_calls_pay_for_nothing_twice(
    tmp_path: Path, corpus: Path, server: Server, quiet: dict[str, bytes], moments: list[int]
) -> None:
    stage = Stage(tmp_path / "killed", corpus, server.url, 1)
    paid = 0

    def kill_at_the_moment() -> bool:
        """With one call at once: when the next one has come and all answers before it are on the disk."""
        if len(server.paid) < paid:
            return True
        deadline = time.monotonic() + 10
        while len(server.written_down(stage.answers_on_disk())) < paid and time.monotonic() < deadline:
            time.sleep(0.002)
        stage.process.kill()
        stage.process.wait()
        return False

    server.before_answer = kill_at_the_moment
    for paid in moments:
        assert stage.run() == -signal.SIGKILL, stage.said
        assert len(server.paid) == paid
        assert not list(stage.folder.glob("generated*"))
    server.before_answer = lambda: True
    killed_while_writing(stage)
    asked = len(server.asked)
    assert stage.run() == 0, stage.said
    assert len(server.asked) == asked  # all was paid for when the first file was written
    assert set(server.paid.values()) == {1} and asked == len(server.paid) + MOMENTS
    assert stage.outputs() == quiet


def test_ten_kills_in_the_middle_of_calls_repeat_only_what_was_not_on_the_disk(
    tmp_path: Path, corpus: Path, server: Server, quiet: dict[str, bytes], moments: list[int]
) -> None:
    stage = Stage(tmp_path / "killed", corpus, server.url, 4)
    answers = 0

    def kill_at_the_moment() -> bool:
        if len(server.paid) < answers:
            return True
        os.kill(stage.process.pid, signal.SIGKILL)
        return False

    known: set[str] = set()
    for answers in moments:  # noqa: B007 (read by kill_at_the_moment)
        server.before_answer = kill_at_the_moment
        assert stage.run() == -signal.SIGKILL, stage.said
        on_disk = stage.answers_on_disk()
        server.note_lost(on_disk)
        assert not known & set(server.asked)
        known, _ = server.written_down(on_disk), server.asked.clear()
    server.before_answer = lambda: True
    killed_while_writing(stage)
    assert stage.run() == 0, stage.said
    assert not known & set(server.asked)
    assert all(times <= 1 + server.lost.get(request, 0) for request, times in server.paid.items())
    assert sum(server.lost.values()) <= 4 * MOMENTS
    assert stage.outputs() == quiet

"""The record of a running service and the verbs that use it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from pipeline.errors import PipelineError
from pipeline.run.service import (
    Health,
    Service,
    describe,
    health,
    is_alive,
    process_start,
    read_service,
    stop,
    tail,
    write_service,
)

STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
WILLING = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def started(tmp_path):
    """Start a process and record it as the service of a folder."""
    processes = []

    def start(code: str = WILLING) -> tuple[subprocess.Popen, Service]:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        processes.append(process)
        process.stdout.readline()
        service = Service(
            pid=process.pid, process_start=process_start(process.pid), machine=socket.gethostname(), host="127.0.0.1",
            port=9, url="http://127.0.0.1:9", backend="onnx", model_dir="m", served_model_name="custom",
            contract_digest="0", started="now", log=str(tmp_path / "server.log"),
        )  # fmt: skip
        write_service(tmp_path, service)
        return process, service

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_a_record_comes_back_as_it_was(tmp_path, started):
    _, service = started()
    assert read_service(tmp_path) == service
    assert is_alive(service)


def test_nothing_deployed(tmp_path):
    assert read_service(tmp_path) is None
    assert health(tmp_path) == Health.NONE
    with pytest.raises(PipelineError, match="no service was deployed"):
        stop(tmp_path)


def test_a_living_process_that_does_not_answer_is_starting(tmp_path, started):
    started()
    assert health(tmp_path, timeout=0.5) == Health.STARTING


def test_describe_says_state_place_and_log(tmp_path, started):
    assert describe(tmp_path) == (False, f"not deployed: no service in {tmp_path}")
    process, service = started()
    process.kill()
    process.wait()
    ready, text = describe(tmp_path)
    assert not ready and text.startswith(f"gone: {service.url}") and str(process.pid) in text and service.log in text


def test_another_process_with_the_same_number_is_not_ours(tmp_path, started):
    process, service = started()
    write_service(tmp_path, replace(service, process_start="1@before"))
    assert health(tmp_path) == Health.GONE
    assert "had already ended" in stop(tmp_path)
    assert process.poll() is None, "the stranger lives on"


def test_stop_asks_and_forgets(tmp_path, started):
    process, _ = started()
    assert stop(tmp_path).startswith("stopped the service")
    assert process.wait(5) == -15 and read_service(tmp_path) is None


def test_stop_kills_what_does_not_listen(tmp_path, started):
    process, _ = started(STUBBORN)
    assert "killed" in stop(tmp_path, timeout=0.3)
    assert process.wait(5) == -9


def test_a_service_of_another_machine_is_left_alone(tmp_path, started):
    process, service = started()
    write_service(tmp_path, replace(service, machine="elsewhere"))
    with pytest.raises(PipelineError, match="runs on elsewhere"):
        stop(tmp_path)
    assert process.poll() is None and read_service(tmp_path) is not None


@pytest.mark.parametrize(
    ("host", "asked"), [("0.0.0.0", False), ("::1", False), ("127.0.0.2", False), ("10.1.2.3", True)]
)
def test_whoever_answers_here_is_not_the_service_of_another_machine(tmp_path, started, monkeypatch, host, asked):
    _, service = started()
    write_service(tmp_path, replace(service, machine="elsewhere", host=host))
    urls = []
    monkeypatch.setattr("pipeline.run.service.answers", lambda url, timeout: urls.append(url) or not asked)
    ready, text = describe(tmp_path)
    assert not ready and "runs on elsewhere, cannot be seen from here" in text and bool(urls) == asked


def test_an_ended_child_that_nobody_waited_for_counts_as_gone(started):
    process, service = started()
    process.kill()
    deadline = time.monotonic() + 5
    while is_alive(service) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(service)


def test_process_start_tells_processes_apart():
    assert process_start(os.getpid()) == process_start(os.getpid())
    assert process_start(2**22 + 1) is None


def test_tail_gives_the_last_lines(tmp_path):
    log = tmp_path / "logs" / "server.log"
    log.parent.mkdir()
    log.write_text("".join(f"line {n}\n" for n in range(100)) + "unfinished")
    assert list(tail(tmp_path, lines=3)) == ["line 98", "line 99", "unfinished"]


def test_tail_follows_until_the_process_ends(tmp_path, started):
    process, _ = started()
    log = tmp_path / "server.log"
    log.write_text("old\n")
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(tail(tmp_path, lines=10, follow=True)))
    reader.start()
    with log.open("a") as stream:
        stream.write("new\nlast words")
    time.sleep(0.3)
    process.kill()
    process.wait()
    reader.join(5)
    assert not reader.is_alive()
    assert seen == ["old", "new", "last words"]


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "service.json").write_text('{"pid": 1}')
    with pytest.raises(PipelineError, match=r"service\.json is damaged"):
        read_service(tmp_path)

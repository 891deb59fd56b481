"""The embedded LLM: llama.cpp's OpenAI-compatible server as a child process, on a free loopback port.

A process of its own, because taking the server down inside ours waits for calls under way, for ever. Parent and child
hold the two ends of a pipe: the child ends as soon as the pipe closes, which the operating system does for us however
the parent ends. Nothing can be left behind.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import PipelineError

log = logging.getLogger("pipeline")

SLOT_TOKENS = 2048
"""Prompt and answer of one call; the model itself was trained on 2048."""
SLOTS_PER_CALL = 2
_SILENT = -1
"""llama.cpp's verbosity below which nothing is written to the terminal."""
_STOP_SECONDS = 5
_SECRETS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
"""Endings of variables that the child has no use for."""


@contextmanager
def embedded_server(weights: Path, parallel: int, threads: int | None = None) -> Iterator[str]:
    """Serve `weights` (GGUF) for `parallel` calls at once; yields the base URL ending in /v1.

    Continuous batching and prompt-prefix caching are on. There are twice as many slots as calls, so that a call finds
    an idle slot that still holds the examples its prompt begins with (measured: 36 instead of 86 tokens to compute).

    Raises:
        PipelineError: the server did not start.
    """
    slots, threads = SLOTS_PER_CALL * parallel, threads or usable_cores()
    # By default llama.cpp's threads spin for long while they wait for each other; beside any other load they then hold
    # the very cores they wait for, and the model becomes ten times slower. A short spin is as fast on an idle machine
    # (measured: 115 and 113 tokens/s; always asleep 79).
    inherited = {name: value for name, value in os.environ.items() if not name.endswith(_SECRETS)}
    environment = {"GOMP_SPINCOUNT": "1000", **inherited}
    command = [sys.executable, "-m", __name__, str(weights), str(slots), str(threads)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdin is not None and child.stdout is not None
    try:
        answer = json.loads(child.stdout.readline() or '{"error": "it ended at once"}')
        if "error" in answer:
            raise PipelineError(f"the embedded LLM did not start: {answer['error']}", fix="see memory and weights file")
        log.info(f"embedded LLM {weights.stem}: {slots} slots, {threads} threads")
        yield f"{answer['address']}/v1"
    finally:
        child.stdin.close()
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def serve(weights: str, slots: int, threads: int) -> None:
    """The child: start the server, say where it listens, and live as long as the parent's end of the pipe."""
    try:
        server = _start(weights, slots, threads)
    except (ImportError, RuntimeError) as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        return
    sys.stdout.write(json.dumps({"address": server.listening_address}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # without the destructor, which would wait for calls under way


def _start(weights: str, slots: int, threads: int):
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = weights
    parameters.verbosity = _SILENT
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_parallel = slots
    parameters.n_ctx = slots * SLOT_TOKENS
    parameters.ui = False
    parameters.cache_ram_mib = 0  # states of finished calls are never asked for again; by default they take 8 GiB
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(parameters)


def usable_cores() -> int:
    """Cores this process may use (a container or taskset may allow fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    import signal

    # Ctrl-C goes to the whole terminal group; the parent decides when the server ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

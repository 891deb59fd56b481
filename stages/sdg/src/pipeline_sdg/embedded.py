"""The embedded LLM: llama.cpp's OpenAI-compatible server inside this process, on a free loopback port.

It lives in a thread of ours, so it ends when this process ends, however it ends: nothing can be left behind.
"""

from __future__ import annotations

import logging
import os
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


@contextmanager
def embedded_server(weights: Path, parallel: int, threads: int | None = None) -> Iterator[str]:
    """Serve `weights` (GGUF) for `parallel` calls at once; yields the base URL ending in /v1.

    Continuous batching and prompt-prefix caching are on. There are twice as many slots as calls, so that a call finds
    an idle slot that still holds the examples its prompt begins with (measured: 36 instead of 86 tokens to compute).
    """
    # Read once, when the library is loaded. By default its threads spin for long while they wait for each other; beside
    # any other load they then hold the very cores they wait for, and the model becomes ten times slower. A short spin
    # is as fast on an idle machine (measured: 115 and 113 tokens/s; always asleep 79).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        import xllamacpp
    except ImportError as error:
        raise PipelineError("the embedded LLM needs xllamacpp", fix="install xllamacpp from PyPI") from error
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.verbosity = _SILENT
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    slots = SLOTS_PER_CALL * parallel
    parameters.n_parallel = slots
    parameters.n_ctx = slots * SLOT_TOKENS
    parameters.ui = False
    parameters.cache_ram_mib = 0  # states of finished calls are never asked for again; by default they take 8 GiB
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads or usable_cores()
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise PipelineError(
            f"the embedded LLM did not start: {error}", fix="see the memory and the weights file"
        ) from error
    log.info(f"embedded LLM {weights.stem}: {slots} slots, {parameters.cpuparams.n_threads} threads")
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server


def usable_cores() -> int:
    """Cores this process may use (a container or taskset may allow fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

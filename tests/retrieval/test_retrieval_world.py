"""Processes of one run: real processes, real gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from pipeline.retrieval.world import World

_PROGRAM = """
from pipeline.retrieval.world import World
world = World.join(1)
world.wait()
print(world.rank, world.size, world.leads, world.share(f"from {world.rank}"), world.gather_objects([world.rank]))
world.leave()
world.leave()
"""


def test_a_lone_process_is_a_world_of_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")  # a stray RANK without others means nothing
    world = World.join(1)
    assert (world, world.leads, world.share(5), world.gather_objects(5)) == (World(0, 1), True, 5, [5])
    world.wait()
    world.leave()


@pytest.mark.slow
def test_two_processes_see_each_other():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    done = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], done
    assert [output.strip() for output, _ in done] == [
        "0 2 True from 0 [[0], [1]]",
        "1 2 False from 0 [[0], [1]]",
    ]

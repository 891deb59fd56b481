"""Several processes train the very model that one process trains: real processes, real gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from safetensors.torch import load_file

_RUN = """
import sys
import torch
from pipeline.config import resolve
from pipeline.run.stage import execute
from pipeline_finetune.main import main
torch.set_num_threads(1)
execute(resolve("embed", "finetune", "demo", sys.argv[1:]), main)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(overrides: list[str], size: int) -> None:
    """Start `size` processes with the environment that torchrun gives them."""
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
              "OMP_NUM_THREADS": "1"}  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RUN, *overrides],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": "0"},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * size, "\n".join(errors)


def weights(stage) -> dict:
    return load_file(stage.checkpoints / "LATEST" / "model" / "consolidated" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [("in_batch_negatives=false", "activation_tokens=200"), ("in_batch_negatives=true", "cross_rank_negatives=true")],
    ids=["hard negatives, split steps", "negatives of all processes"],
)
def test_two_processes_train_what_one_does(stage, another_stage, more):
    # 24 rows in steps of 8 that two processes share; 22 rows leave a last step of 6, three for each.
    common = ("max_train_samples=21", "auto_scale_batch=false", "num_epochs=1", "dropout=0.0", *more)
    another_stage(*common)
    torchrun(stage.overrides(*common), size=2)
    assert stage.losses == pytest.approx(another_stage.losses, abs=2e-5)
    ours, theirs = weights(stage), weights(another_stage)
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 2e-5
    assert stage.manifest["metrics"]["val_loss"] == pytest.approx(
        another_stage.manifest["metrics"]["val_loss"], abs=1e-4
    )
    lines = stage.lines("training.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3], "one process alone writes"

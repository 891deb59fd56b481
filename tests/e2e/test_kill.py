"""`kill -9` in the middle of a stage: the same command again finishes the run, and nothing paid for is lost."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_sdg_killed_in_the_middle_repeats_no_finished_call(fresh_run):
    journal = fresh_run.stage("sdg") / "journal.sqlite"

    def some_calls_are_journaled() -> bool:
        return journal.exists() and _journaled(journal) >= 5

    fresh_run.kill_when("sdg", some_calls_are_journaled)
    kept = _journaled(journal)
    assert not (fresh_run.stage("sdg") / "manifest.json").exists()
    assert "partial" in fresh_run("status").stdout
    _no_process_of(fresh_run)

    fresh_run("sdg")
    total = fresh_run.json("sdg", "usage.json")["total"]
    assert total["calls_reused"] >= kept
    assert total["calls_made"] == _journaled(journal) - kept


def test_finetune_killed_in_the_middle_continues_from_its_last_checkpoint(fresh_run):
    fresh_run("run", "--to", "prep")
    checkpoints = fresh_run.stage("finetune") / "checkpoints"
    more = ("num_epochs=20", "max_steps=12", "checkpoint_every_steps=2")

    def two_checkpoints_are_there() -> bool:
        return len(list(checkpoints.glob("epoch_*_step_*"))) >= 2

    fresh_run.kill_when("finetune", two_checkpoints_are_there, *more)
    _no_process_of(fresh_run)

    fresh_run("finetune", *more)
    log = (fresh_run.stage("finetune") / "logs" / "latest.log").read_text()
    continued = re.search(r"continuing after step (\d+)", log)
    assert continued and int(continued.group(1)) >= 2, log
    steps = _steps(checkpoints)
    assert steps == list(range(1, steps[-1] + 1)) and steps[-1] > int(continued.group(1))
    assert (checkpoints / "LATEST" / "model" / "consolidated" / "model.safetensors").is_file()


def _journaled(path) -> int:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return connection.execute("select count(*) from calls").fetchone()[0]
    except sqlite3.OperationalError:  # not created yet
        return 0


def _steps(checkpoints) -> list[int]:
    lines = (checkpoints / "training.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def _no_process_of(run) -> None:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(run.folder) not in "\n".join(line for line in listed.splitlines() if "pytest" not in line)

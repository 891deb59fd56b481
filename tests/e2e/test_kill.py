"""`kill -9` in the middle of a stage: the same command again finishes the run, and nothing paid for is lost."""

from __future__ import annotations

import json
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
    usage = fresh_run.json("sdg", "usage.json")
    assert sum(role["reused"] for role in usage["roles"].values()) >= kept
    assert sum(role["calls"] for role in usage["roles"].values()) == _journaled(journal) - kept


def test_finetune_killed_in_the_middle_continues_from_its_last_checkpoint(fresh_run):
    fresh_run("run", "--to", "prep")
    checkpoints = fresh_run.stage("finetune") / "checkpoints"
    more = ("max_steps=12", "checkpoint_every_steps=2")

    def two_checkpoints_are_there() -> bool:
        return len(list(checkpoints.glob("epoch_*_step_*"))) >= 2

    fresh_run.kill_when("finetune", two_checkpoints_are_there, *more)
    before = _steps(checkpoints)
    _no_process_of(fresh_run)

    fresh_run("finetune", *more)
    steps = _steps(checkpoints)
    first_again = steps[len(before) :][0]
    assert first_again > 1, "it began from the start"
    assert steps[-1] == 12 or steps[-1] == 11  # steps count from 1 or from 0
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

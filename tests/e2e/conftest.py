"""The real command line on the real models, on a handful of documents (`-c smoke`)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.family import FAMILIES
from pipeline.home import workspace

WAIT_SECONDS = 300


class Run:
    """One run directory with its own copy of some demo documents."""

    def __init__(self, root: Path, family: str = "embed") -> None:
        self.family, self.folder, self.corpus = family, root / "run", root / "corpus"
        self.also: tuple[str, ...] = ()
        """Overrides of `run`."""
        for name in ("alarms", "modules", "parts"):
            target = self.corpus / name
            target.mkdir(parents=True)
            for path in sorted((workspace() / "data" / "demo" / "corpus" / name).glob("*.md"))[:4]:
                shutil.copy(path, target)

    def arguments(self, command: str, *more: str) -> list[str]:
        options = ["-c", "smoke", f"run_dir={self.folder}"]
        if command in ("run", "sdg", "eval", "status"):
            options.append(f"corpus_dir={self.corpus}")
        if command in ("run", "status"):
            options += self.also
        return [sys.executable, "-m", "pipeline", self.family, command, *options, *more]

    def __call__(self, command: str, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "160"}
        done = subprocess.run(self.arguments(command, *more), capture_output=True, text=True, env=environment)
        assert not check or done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done

    def kill_when(self, stage: str, reached: Callable[[], bool], *more: str) -> None:
        """Start a stage and SIGKILL its process as soon as `reached()` holds."""
        started = subprocess.Popen(self.arguments(stage, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + WAIT_SECONDS
        while not reached():
            assert started.poll() is None, f"{stage} ended before it could be killed"
            assert time.monotonic() < deadline, f"{stage} did not get far enough"
            time.sleep(0.02)
        holder = json.loads((self.stage(stage) / ".lock.holder.json").read_text())
        os.kill(holder["pid"], signal.SIGKILL)
        assert started.wait(timeout=WAIT_SECONDS) != 0

    def stage(self, name: str) -> Path:
        return self.folder / FAMILIES[self.family].folders[name]

    def manifest(self, name: str) -> dict:
        return json.loads((self.stage(name) / "manifest.json").read_text())

    def json(self, name: str, file: str) -> dict:
        return json.loads((self.stage(name) / file).read_text())


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run from sdg to export."""
    run = Run(tmp_path_factory.mktemp("smoke"))
    run("run")
    return run


@pytest.fixture(scope="session")
def rerank_smoke(smoke: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the rerank family on the questions of the embed run, whose tuned model is the first stage."""
    run = Run(tmp_path_factory.mktemp("rerank"), "rerank")
    run.also = _inputs_of(smoke)
    run("run", "--from", "prep")
    return run


def _inputs_of(embed: Run) -> tuple[str, ...]:
    tuned = embed.stage("finetune") / "checkpoints" / "LATEST" / "model" / "consolidated"
    # The service computes in fp32; so few questions and so little training would show every other rounding.
    return (
        f"prep.sdg_input_path={embed.stage('sdg')}",
        f"eval.retrieval_model={tuned}",
        "eval.precision=fp32",
        "eval.top_k=10",
    )


@pytest.fixture
def fresh_run(tmp_path: Path) -> Run:
    return Run(tmp_path)

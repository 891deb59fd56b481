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

from pipeline.home import workspace

FOLDERS = {
    "sdg": "stage0_sdg",
    "prep": "stage1_data_prep",
    "finetune": "stage2_finetune",
    "eval": "stage3_eval",
    "export": "stage4_export",
    "deploy": "stage5_deploy",
}
WAIT_SECONDS = 300


class Run:
    """One run directory with its own copy of some demo documents."""

    def __init__(self, root: Path) -> None:
        self.folder, self.corpus = root / "run", root / "corpus"
        for name in ("alarms", "modules", "parts"):
            target = self.corpus / name
            target.mkdir(parents=True)
            for path in sorted((workspace() / "data" / "demo" / "corpus" / name).glob("*.md"))[:4]:
                shutil.copy(path, target)

    def arguments(self, command: str, *more: str) -> list[str]:
        options = ["-c", "smoke", f"run_dir={self.folder}"]
        if command in ("run", "sdg", "eval", "status"):
            options.append(f"corpus_dir={self.corpus}")
        return [sys.executable, "-m", "pipeline", "embed", command, *options, *more]

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
        return self.folder / FOLDERS[name]

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


@pytest.fixture
def fresh_run(tmp_path: Path) -> Run:
    return Run(tmp_path)

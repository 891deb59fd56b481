"""Start one training in a process of its own, ours or the peer's, and read what it measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rows import Row

from pipeline.assets import resolve_model
from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.run.handoff import write_handoff

HERE = Path(__file__).parent
PEER = "sentence-transformers[train]==6.2.0"
MODEL = "embedded:all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Setting:
    """What all systems share."""

    family: str
    batch: int
    skip_steps: int
    epochs: int = 1
    max_length: int = 256
    learning_rate: float = 2e-5
    lr_warmup_steps: int = 1
    temperature: float = 0.05
    seed: int = 42
    threads: int = 2
    cpu: bool = True
    overrides: tuple[str, ...] = ()
    """`key=value` for our stage alone."""


@dataclass(frozen=True)
class System:
    """One way to train: ours (`overrides` of our keys), or the peer's loss in fp32 or bf16."""

    name: str
    peer_loss: str | None = None
    bf16: bool = False
    overrides: tuple[str, ...] = ()
    peer_options: dict[str, Any] = field(default_factory=dict)


def run_ours(system: System, setting: Setting, train: Path, folder: Path) -> dict[str, float]:
    """Train with our finetune stage; the model lies under `folder`/run."""
    overrides = [
        f"run_dir={folder / 'run'}", f"train_data_path={train}", "val_data_path=null", f"base_model={MODEL}",
        f"device={'cpu' if setting.cpu else 'cuda'}", f"seed={setting.seed}", f"num_epochs={setting.epochs}",
        f"global_batch_size={setting.batch}", f"learning_rate={setting.learning_rate}", "dropout=null",
        f"lr_warmup_steps={setting.lr_warmup_steps}", "checkpoint_every_steps=1000000", "lr_decay_style=linear",
        f"precision={'bf16' if system.bf16 else 'fp32'}",
    ]  # fmt: skip
    if setting.family == "embed":
        overrides += [
            f"query_max_length={setting.max_length}", f"passage_max_length={setting.max_length}",
            f"temperature={setting.temperature}", "in_batch_negatives=true",
        ]  # fmt: skip
    else:
        overrides += [f"rerank_max_length={setting.max_length}", "temperature=1.0"]
    given = [*overrides, *setting.overrides, *system.overrides]
    folder.mkdir(parents=True)
    handoff = write_handoff(resolve(setting.family, "finetune", "demo", given), folder / "config.yaml")
    spec = {"handoff": str(handoff), "skip_steps": setting.skip_steps, "cpu": setting.cpu}
    return run_process([sys.executable], "ours_process.py", spec, setting, folder)


def run_peer(system: System, setting: Setting, rows: Path, folder: Path, save: Path | None = None) -> dict[str, float]:
    """Train with sentence-transformers on the same rows; the model is written to `save`."""
    folder.mkdir(parents=True)
    spec = {
        "family": setting.family, "model": resolve_model(MODEL), "rows": str(rows), "loss": system.peer_loss,
        "bf16": system.bf16, "cpu": setting.cpu, "batch": setting.batch, "epochs": setting.epochs,
        "max_length": setting.max_length, "learning_rate": setting.learning_rate, "seed": setting.seed,
        "lr_warmup_steps": setting.lr_warmup_steps, "temperature": setting.temperature,
        "skip_steps": setting.skip_steps, "folder": str(folder / "trainer"), "save": str(save) if save else None,
        **system.peer_options,
    }  # fmt: skip
    return run_process(peer_command(), "peer_process.py", spec, setting, folder)


def measure_gemm(setting: Setting, folder: Path) -> dict[str, float]:
    """Operations per second of a large matrix product on this machine now: {"fp32": …, "bf16": …}."""
    folder.mkdir(parents=True)
    return run_process([sys.executable], "ours_process.py", {"gemm": True, "cpu": setting.cpu}, setting, folder)


def measure_gradcache(setting: Setting, rows: list[Row], folder: Path) -> dict[str, float]:
    """Extra time of a step over these rows whose activations are held in half, or not at all."""
    folder.mkdir(parents=True)
    passages = [row.positive for row in rows] + [text for row in rows for text in row.negatives]
    spec = {
        "model": MODEL, "queries": [row.query for row in rows], "passages": passages, "max_length": setting.max_length
    }  # fmt: skip
    return run_process([sys.executable], "gradcache_process.py", spec, setting, folder)


def peer_command(trains: bool = True) -> list[str]:
    """The Python of the peer: this one if it has all the peer needs, else uv's, outside our lock, same torch."""
    try:
        if version("sentence-transformers") == PEER.split("==")[1] and (not trains or version("accelerate")):
            return [sys.executable]
    except PackageNotFoundError:
        pass
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise PipelineError("the peer is not installed here and uv is not on PATH", fix=f'pip install uv "{PEER}"')
    pins = [f"{name}=={version(name).split('+')[0]}" for name in ("torch", "transformers")]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [
        uv,
        "run",
        "--no-project",
        "--python",
        python,
        *(word for name in (PEER, *pins) for word in ("--with", name)),
        "python",
    ]


def run_process(
    python: list[str], script: str, spec: dict[str, Any], setting: Setting, folder: Path
) -> dict[str, float]:
    """Run `script` with this specification; what it wrote as its result, and the seconds of the whole process."""
    result, log = folder / "result.json", folder / "log.txt"
    path = folder / "spec.json"
    path.write_text(json.dumps(spec | {"threads": setting.threads, "result": str(result)}), encoding="utf-8")
    threads = str(setting.threads)
    fixed = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    environment = {**os.environ, **fixed, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    if setting.cpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    begun = time.perf_counter()
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            [*python, str(HERE / script), str(path)], stdout=stream, stderr=subprocess.STDOUT, env=environment
        )
    if done.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
        raise PipelineError(f"{script} failed with exit code {done.returncode}; {log} ends:\n{tail}")
    return json.loads(result.read_text(encoding="utf-8")) | {"process_s": time.perf_counter() - begun}

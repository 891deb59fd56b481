"""Checkpoints on disk: complete or absent, newest and best kept, old runs set aside, never pickled.

<checkpoint_dir>/epoch_E_step_S/model/consolidated/   weights, tokenizer, contract: loads anywhere
                               /training.safetensors  optimizer and random state
                               /state.json            fingerprint, position, metrics
                /LATEST -> epoch_E_step_S
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import PipelineError
from pipeline.run.files import read_json, write_json, write_text

LATEST = "LATEST"
CONSOLIDATED = Path("model") / "consolidated"
_STATE, _TENSORS, _TEMPORARY = "state.json", "training.safetensors", ".tmp-"
log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint. `state` is its `state.json`: fingerprint, step (finished ones), epoch, val, train."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return self.state["step"]

    @property
    def val_loss(self) -> float:
        """Validation loss, infinite where none was measured."""
        return (self.state.get("val") or {}).get("val_loss", float("inf"))

    @property
    def consolidated(self) -> Path:
        return self.path / CONSOLIDATED

    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.path / _TENSORS)


class Checkpoints:
    """The checkpoint folder of one run. `keep` newest ones stay, and the one with the lowest validation loss."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def all(self) -> list[Checkpoint]:
        """Complete checkpoints, oldest first. A folder is renamed into place whole, so a state file says complete."""
        found = [Checkpoint(path.parent, read_json(path)) for path in self.folder.glob(f"epoch_*_step_*/{_STATE}")]
        return sorted(found, key=lambda item: item.step)

    def open(self, fingerprint: str, resume: str) -> Checkpoint | None:
        """Get the folder ready: the checkpoint to continue from, or None for a fresh run.

        Checkpoints of another run are moved to `<folder>.<its fingerprint>`, never deleted.

        Raises:
            PipelineError: `resume` is "must" and there is nothing of this run to continue.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover)
        for leftover in self.folder.glob(f".{LATEST}.*"):
            leftover.unlink()
        existing = self.all()
        newest = existing[-1] if existing else None
        mine = newest is not None and newest.state["fingerprint"] == fingerprint
        if resume == "must" and not mine:
            what = "is empty" if newest is None else "holds a run with other data or settings"
            raise PipelineError(f"resume=must, but {self.folder} {what}", fix="set resume=auto to start a fresh run")
        if newest and (not mine or resume == "never"):
            self._set_aside(newest.state["fingerprint"], "resume=never" if mine else "its data or settings differ")
            return None
        return newest

    def save(
        self, state: dict[str, Any], tensors: dict[str, torch.Tensor], write_model: Callable[[Path], Any]
    ) -> Checkpoint:
        """Write a checkpoint beside the others, rename it into place, point LATEST at it and drop what is too old."""
        final = self.folder / f"epoch_{state['epoch']}_step_{state['step']}"
        temporary = self.folder / f"{_TEMPORARY}{final.name}"
        write_model(temporary / CONSOLIDATED)
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary / _TENSORS)
        write_json(temporary / _STATE, state)
        _flush(temporary)
        if final.exists():
            self._remove(final)
        os.replace(temporary, final)
        saved = Checkpoint(final, state)
        self.point_latest(saved)
        self.prune()
        return saved

    def best(self) -> Checkpoint | None:
        """The checkpoint with the lowest validation loss (the earliest of equals), None without validation."""
        measured = [item for item in self.all() if item.val_loss != float("inf")]
        return min(measured, key=lambda item: item.val_loss, default=None)

    def point_latest(self, checkpoint: Checkpoint) -> None:
        """Replace the LATEST link in one move; a LATEST.txt where the file system has no links."""
        link, temporary = self.folder / LATEST, self.folder / f".{LATEST}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(checkpoint.path.name)
            os.replace(temporary, link)
        except OSError:
            write_text(self.folder / f"{LATEST}.txt", checkpoint.path.name + "\n")

    def prune(self) -> None:
        existing, best = self.all(), self.best()
        for item in existing[: -self.keep]:
            if best is None or item.path != best.path:
                self._remove(item.path)

    def _remove(self, path: Path) -> None:
        # Renamed first: a half-deleted folder must never look like a checkpoint.
        doomed = path.with_name(f"{_TEMPORARY}removed-{path.name}")
        os.replace(path, doomed)
        shutil.rmtree(doomed)

    def _set_aside(self, fingerprint: str, reason: str) -> None:
        base = self.folder.with_name(f"{self.folder.name}.{fingerprint[:8]}")
        target, number = base, 1
        while target.exists():
            number += 1
            target = base.with_name(f"{base.name}.{number}")
        os.replace(self.folder, target)
        self.folder.mkdir(parents=True)
        log.info("%s holds another run (%s): moved to %s, starting afresh", self.folder, reason, target)


def _flush(folder: Path) -> None:
    """Have every file on disk before the folder gets its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())

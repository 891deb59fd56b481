"""Checkpoints on disk: complete or absent, newest and best kept, old runs set aside, never pickled.

<checkpoint_dir>/epoch_E_step_S/model/consolidated/   weights, tokenizer, contract: loads anywhere
                               /training.safetensors  optimizer and random state
                               /state.json            fingerprint, position, metrics
                /LATEST -> epoch_E_step_S
                /BEST -> epoch_E_step_S                       where there is validation
"""

from __future__ import annotations

import logging
import math
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

LATEST, BEST = "LATEST", "BEST"
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

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """The checkpoint in `folder`. Raises PipelineError if it is none or was not finished."""
        path = folder / _STATE
        if not path.is_file():
            raise PipelineError(f"{folder} is no complete checkpoint: it has no {_STATE}")
        return cls(folder.resolve(), read_json(path))

    @property
    def finished(self) -> bool:
        """True for the last checkpoint of a run: at the end of its schedule, or where it stopped early."""
        return self.state.get("finished", False)

    def quality(self, metric: str) -> float:
        """The validation's value of `metric`, higher is better (a loss is negated); -inf where none was measured."""
        value = (self.state.get("val") or {}).get(metric)
        return -math.inf if value is None else quality(metric, value)

    @property
    def consolidated(self) -> Path:
        return self.path / CONSOLIDATED

    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.path / _TENSORS)


def quality(metric: str, value: float) -> float:
    """`value` so that higher is better."""
    return -value if metric.endswith("loss") else value


class Checkpoints:
    """The checkpoint folder of one run. `keep` newest ones stay, and the best one by validation metric `metric`."""

    def __init__(self, folder: Path, keep: int, metric: str = "val_ndcg10") -> None:
        self.folder, self.keep, self.metric = folder, keep, metric

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
        self._sweep()
        existing = self.all()
        newest = existing[-1] if existing else None
        mine = newest is not None and newest.state["fingerprint"] == fingerprint
        if resume == "must" and not mine:
            what = "is empty" if newest is None else "holds a run with other data or settings"
            raise PipelineError(f"resume=must, but {self.folder} {what}", fix="set resume=auto to start a fresh run")
        if newest and (not mine or resume == "never"):
            reason = "resume=never" if mine else "its data or settings differ"
            self._set_aside(newest.state["fingerprint"], f"holds another run ({reason}), starting afresh")
            return None
        return newest

    def restore(self, wanted: str, fingerprint: str) -> Checkpoint:
        """Get the folder ready to continue from a checkpoint a person named: LATEST, BEST, a name in it, or a path.

        Later checkpoints of the folder belong to work that will be done again: the whole folder is set aside and the
        named one copied into a new one, unless it is the newest of this very run.

        Raises:
            PipelineError: there is no such complete checkpoint.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        target = self._named(wanted)
        existing = self.all()
        if target.state["fingerprint"] != fingerprint:
            log.warning(
                "%s was trained with other settings or data: its weights and optimizer go on under this run's",
                target.path.name,
            )
        elif existing and existing[-1].path == target.path:
            return target
        if target.path.parent != self.folder.resolve():
            return self._begin_with(target, existing)
        aside = self._set_aside(existing[-1].state["fingerprint"], f"holds later steps than {target.path.name}")
        for history in aside.glob("*.jsonl"):
            shutil.copyfile(history, self.folder / history.name)
        return self._begin_with(Checkpoint.read(aside / target.path.name), [])

    def _named(self, wanted: str) -> Checkpoint:
        inside = self.folder / wanted
        if wanted == LATEST and not inside.exists():
            existing = self.all()
            if not existing:
                raise PipelineError(f"restore_from=LATEST, but {self.folder} holds no checkpoint")
            return Checkpoint.read(existing[-1].path)
        folder = inside if "/" not in wanted and inside.exists() else Path(wanted).expanduser()
        if not folder.is_dir():
            names = ", ".join(item.path.name for item in self.all()) or "none"
            raise PipelineError(f"restore_from={wanted}: no such checkpoint", fix=f"there are: {names}; or give a path")
        return Checkpoint.read(folder)

    def _begin_with(self, source: Checkpoint, existing: list[Checkpoint]) -> Checkpoint:
        """Copy `source` into the folder, which is emptied by setting its run aside."""
        if existing:
            self._set_aside(existing[-1].state["fingerprint"], "holds another run")
        temporary = self.folder / f"{_TEMPORARY}{source.path.name}"
        shutil.copytree(source.path, temporary)
        _flush(temporary)
        os.replace(temporary, self.folder / source.path.name)
        copied = Checkpoint.read(self.folder / source.path.name)
        self.point(LATEST, copied)
        return copied

    def _sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for leftover in self.folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover)
        for name in (LATEST, BEST):
            for leftover in self.folder.glob(f".{name}.*"):
                leftover.unlink()

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
        self.point(LATEST, saved)
        best = self.best()
        if best is not None:
            self.point(BEST, best)
        self.prune()
        return saved

    def best(self) -> Checkpoint | None:
        """The best checkpoint (the earliest of equals), None without validation."""
        measured = [item for item in self.all() if item.quality(self.metric) > -math.inf]
        return max(measured, key=lambda item: item.quality(self.metric), default=None)

    def point(self, name: str, checkpoint: Checkpoint) -> None:
        """Replace the link `name` in one move; a text file `name`.txt where the file system has no links."""
        link, temporary = self.folder / name, self.folder / f".{name}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(checkpoint.path.name)
            os.replace(temporary, link)
        except OSError:
            write_text(self.folder / f"{name}.txt", checkpoint.path.name + "\n")

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

    def _set_aside(self, fingerprint: str, reason: str) -> Path:
        base = self.folder.with_name(f"{self.folder.name}.{fingerprint[:8]}")
        target, number = base, 1
        while target.exists():
            number += 1
            target = base.with_name(f"{base.name}.{number}")
        os.replace(self.folder, target)
        self.folder.mkdir(parents=True)
        log.info("%s %s: moved to %s", self.folder, reason, target)
        return target


def _flush(folder: Path) -> None:
    """Have every file on disk before the folder gets its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())

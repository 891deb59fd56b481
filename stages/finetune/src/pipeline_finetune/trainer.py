"""The loop: the same for every family."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.run.progress import progress
from pipeline_finetune.checkpoint import Checkpoint, Checkpoints
from pipeline_finetune.optimizer import optimizer_tensors, restore_optimizer, set_learning_rate
from pipeline_finetune.rng import random_state, restore_random_state
from pipeline_finetune.schedule import Schedule
from pipeline_finetune.strategy import StepResult, Training
from pipeline_finetune.tracking import Tracker

_LOSS_WINDOW = 20
_SHOWN_ROWS = 10
log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class RunIdentity:
    """Who this run is: `fingerprint` is equal for every process that continues it, `run_id` for none."""

    fingerprint: str
    run_id: str
    seed: int


class Trainer:
    """Runs a schedule over a family's training, with validation, checkpoints and a line for every step."""

    def __init__(
        self,
        training: Training,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        *,
        checkpoints: Checkpoints,
        tracker: Tracker,
        identity: RunIdentity,
        max_grad_norm: float,
    ) -> None:
        self.training, self.optimizer, self.schedule = training, optimizer, schedule
        self.checkpoints, self.tracker, self.identity = checkpoints, tracker, identity
        self.max_grad_norm = max_grad_norm
        self.start = 0
        self.flops = 0.0
        self._losses: deque[float] = deque(maxlen=_LOSS_WINDOW)
        self._order: tuple[int, np.ndarray] | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue after `checkpoint`, whose weights the model already has."""
        tensors = checkpoint.tensors()
        random = {name: tensors.pop(name) for name in list(tensors) if name.startswith("rng.")}
        restore_optimizer(self.optimizer, self.training.model.named_parameters(), tensors)
        restore_random_state(random, self.training.device)
        self.start = checkpoint.step
        totals = checkpoint.state["totals"]
        self.flops = totals["flops"]
        self.tracker.seconds, self.tracker.examples = totals["seconds"], totals["examples"]
        self.tracker.tokens = totals["tokens"]
        self._losses.extend(checkpoint.state["recent_losses"])

    def run(self) -> None:
        """Train to the end of the schedule; the last step always leaves a checkpoint and a validation."""
        total = self.schedule.total_steps
        self.training.model.train()
        with progress("training", total, "steps", done=self.start) as shown:
            for step in range(self.start, total):
                loss, rate = self._step(step)
                shown.advance(1, f"loss {loss:.4f}, learning rate {rate:.2g}")
                finished = step + 1
                save = finished == total or finished % self.schedule.checkpoint_every == 0
                val = self._validate(finished) if save or finished % self.schedule.val_every == 0 else None
                if save:
                    self._save(finished, val)

    def _step(self, step: int) -> tuple[float, float]:
        """One optimizer step; returns loss and learning rate."""
        begun = time.perf_counter()
        epoch, part = self.schedule.position(step)
        rows = self._epoch_order(epoch)[part]
        rate = self.schedule.learning_rate_at(step)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        result = self.training.step(rows)
        self._must_be_finite("loss", result.loss, step, rows)
        parameters = self.training.model.parameters()
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm))
        self._must_be_finite("gradient norm", norm, step, rows)
        self.optimizer.step()
        self._record(step, epoch, result, len(rows), rate, norm, time.perf_counter() - begun)
        return result.loss, rate

    def _record(
        self, step: int, epoch: int, result: StepResult, examples: int, rate: float, norm: float, seconds: float
    ) -> None:
        self._losses.append(result.loss)
        self.flops += result.flops
        self.tracker.step(
            step=step + 1,
            epoch=epoch,
            seconds=seconds,
            examples=examples,
            tokens=result.tokens,
            loss=result.loss,
            lr=rate,
            grad_norm=norm,
            padding_share=round(1 - result.tokens / result.padded_tokens, 4),
        )

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """The epoch's row order, from seed and epoch alone, so that any process can continue it."""
        if self._order is None or self._order[0] != epoch:
            generator = np.random.default_rng([self.identity.seed, epoch])
            self._order = epoch, generator.permutation(self.schedule.rows)
        return self._order[1]

    def _must_be_finite(self, what: str, value: float, step: int, rows: np.ndarray) -> None:
        if math.isfinite(value):
            return
        names = self.training.names(rows)
        shown = ", ".join(names[:_SHOWN_ROWS]) + (
            f" and {len(names) - _SHOWN_ROWS} more" if names[_SHOWN_ROWS:] else ""
        )
        raise PipelineError(
            f"the {what} became {value} at step {step + 1}, rows {shown}; the run ends before anything of this step "
            "is saved",
            fix="lower learning_rate, raise lr_warmup_steps or temperature, try precision=fp32; "
            "if it always happens at these rows, look at their texts",
        )

    def _validate(self, step: int) -> dict[str, float] | None:
        values = self.training.validate()
        if values:
            self.tracker.validated(step=step, epoch=self._epoch_of(step), **values)
            log.info(
                "validation after step %d: loss %.4f, accuracy@1 %.3f, MRR %.3f over %d rows",
                step,
                values["val_loss"],
                values["val_acc1"],
                values["val_mrr"],
                values["val_rows"],
            )
        return values

    def _save(self, step: int, val: dict[str, float] | None) -> None:
        state: dict[str, Any] = {
            "schema_version": 1,
            "fingerprint": self.identity.fingerprint,
            "run_id": self.identity.run_id,
            "step": step,
            "epoch": self._epoch_of(step),
            "total_steps": self.schedule.total_steps,
            "train_loss": sum(self._losses) / len(self._losses),
            "recent_losses": list(self._losses),
            "val": val,
            "totals": {
                "seconds": self.tracker.seconds,
                "examples": self.tracker.examples,
                "tokens": self.tracker.tokens,
                "flops": self.flops,
            },
        }
        tensors = optimizer_tensors(self.optimizer, self.training.model.named_parameters())
        tensors |= random_state(self.training.device)
        saved = self.checkpoints.save(state, tensors, self.training.save)
        log.info("checkpoint %s", saved.path.name)

    def _epoch_of(self, step: int) -> int:
        """Epoch (0-based) of the `step`-th step, counted from 1."""
        return self.schedule.position(step - 1)[0]

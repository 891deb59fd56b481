"""The loop: the same for every family."""

from __future__ import annotations

import logging
import math
import resource
import sys
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.run.progress import progress
from pipeline_finetune.checkpoint import Checkpoint, Checkpoints, quality
from pipeline_finetune.distributed import TrainingWorld
from pipeline_finetune.health import CollapseGuard
from pipeline_finetune.optimizer import optimizer_tensors, restore_optimizer, set_learning_rate
from pipeline_finetune.order import ORDERS
from pipeline_finetune.rng import seed_step
from pipeline_finetune.schedule import Schedule
from pipeline_finetune.steps import StepResult
from pipeline_finetune.strategy import Training
from pipeline_finetune.tracking import Tracker

_LOSS_WINDOW = 20
_SHOWN_ROWS = 10
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class RunIdentity:
    """Who this run is: `fingerprint` is equal for every process that continues it, `run_id` for none."""

    fingerprint: str
    run_id: str
    seed: int


@dataclass(frozen=True)
class Policy:
    """What the loop does besides stepping.

    Attributes:
        max_grad_norm: gradients are scaled down to this norm.
        data_order: a key of `ORDERS`.
        patience: validations without a better `Checkpoints.metric` after which the run ends; None never does.
        keep_best: a checkpoint is written whenever that metric has improved.
        guard: notices scores that have become equal.
    """

    max_grad_norm: float
    data_order: str = "random"
    patience: int | None = None
    keep_best: bool = False
    guard: CollapseGuard = field(default_factory=lambda: CollapseGuard(stops=True))


class Trainer:
    """Runs a schedule over a family's training, with validation, checkpoints and a line for every step."""

    def __init__(
        self,
        training: Training,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        *,
        checkpoints: Checkpoints,
        tracker: Tracker | None,
        identity: RunIdentity,
        policy: Policy,
        world: TrainingWorld,
    ) -> None:
        self.training, self.optimizer, self.schedule = training, optimizer, schedule
        self.checkpoints, self.tracker, self.identity = checkpoints, tracker, identity
        self.policy, self.world = policy, world
        self.start = 0
        self.totals = {"seconds": 0.0, "examples": 0.0, "tokens": 0.0, "flops": 0.0}
        self._losses: deque[float] = deque(maxlen=_LOSS_WINDOW)
        self._best: list[float] = []  # [step, quality] of the best validation so far
        self._since_best = 0
        self._order: tuple[int, np.ndarray] | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue after `checkpoint`, whose weights the model already has."""
        restore_optimizer(self.optimizer, self.training.model.named_parameters(), checkpoint.tensors())
        self.start = checkpoint.step
        self.totals = dict(checkpoint.state["totals"])
        self._losses.extend(checkpoint.state["recent_losses"])
        self._best = list(checkpoint.state["best"])
        self._since_best = checkpoint.state["since_best"]

    def run(self) -> None:
        """Train to the end of the schedule or until it stops early; the last step leaves a checkpoint."""
        total = self.schedule.total_steps
        self.training.model.train()
        follow = progress("training", total, "steps", done=self.start) if self.world.leads else nullcontext()
        with follow as shown:
            for step in range(self.start, total):
                loss, rate = self._step(step)
                if shown:
                    shown.advance(1, f"loss {loss:.4f}, learning rate {rate:.2g}")
                if self._after(step + 1):
                    break

    def _after(self, finished: int) -> bool:
        """Validate and save where it is time to; True if the run is to end here. All processes decide alike."""
        last = finished == self.schedule.total_steps
        save = last or finished % self.schedule.checkpoint_every == 0
        if not save and finished % self.schedule.val_every:
            return False
        stop = False
        if self.world.leads:
            val = self._validate(finished)
            improved = val is not None and self._improves(finished, val)
            stop = self.policy.patience is not None and self._since_best >= self.policy.patience
            if save or stop or (improved and self.policy.keep_best):
                self._save(finished, val, finished=last or stop)
            if stop and not last:
                log.info(
                    "stopping early: %d validations without a better %s than after step %d",
                    self._since_best,
                    self.checkpoints.metric,
                    self._best[0],
                )
        return bool(self.world.share(stop))

    def _step(self, step: int) -> tuple[float, float]:
        """One optimizer step; returns loss and learning rate."""
        begun = time.perf_counter()
        epoch, part = self.schedule.position(step)
        rows = self._epoch_order(epoch)[part]
        rate = self.schedule.learning_rate_at(step)
        set_learning_rate(self.optimizer, rate)
        seed_step(self.identity.seed, step, self.world.rank)
        self.optimizer.zero_grad(set_to_none=True)
        result = self.training.step(rows)
        self.world.average_gradients(self.training.model.parameters())
        counts = [result.loss, result.tokens, result.padded_tokens, result.flops]
        loss, tokens, padded, flops = self.world.total(counts, self.training.device)
        self._must_be_finite("loss", loss, step, rows)
        norm = float(torch.nn.utils.clip_grad_norm_(self.training.model.parameters(), self.policy.max_grad_norm))
        self._must_be_finite("gradient norm", norm, step, rows)
        self.optimizer.step()
        whole = StepResult(loss, int(tokens), int(padded), flops, result.health)
        self._record(step, epoch, whole, len(rows), rate, norm, time.perf_counter() - begun)
        self.policy.guard.watch(step + 1, result.health)
        return loss, rate

    def _record(
        self, step: int, epoch: int, result: StepResult, examples: int, rate: float, norm: float, seconds: float
    ) -> None:
        self._losses.append(result.loss)
        taken = {"seconds": seconds, "examples": examples, "tokens": result.tokens, "flops": result.flops}
        for name, value in taken.items():
            self.totals[name] += value
        if self.tracker:
            self.tracker.step(
                step=step + 1,
                epoch=epoch,
                seconds=seconds,
                examples=examples,
                tokens=result.tokens,
                loss=result.loss,
                loss_avg_window=sum(self._losses) / len(self._losses),
                lr=rate,
                grad_norm=norm,
                padding_share=round(1 - result.tokens / result.padded_tokens, 4),
                memory_gib=round(memory_gib(self.training.device), 3),
                **result.health,
            )

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """The epoch's row order, from seed and epoch alone, so that any process can continue it."""
        if self._order is None or self._order[0] != epoch:
            order = ORDERS[self.policy.data_order]
            table = self.training.data.train
            self._order = epoch, order(table, self.identity.seed, epoch, self.schedule.global_batch)
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
        if values and self.tracker:
            self.tracker.validated(step=step, epoch=self._epoch_of(step), **values)
            log.info(
                "validation after step %d: loss %.4f, accuracy@1 %.3f, MRR %.3f, nDCG@10 %.3f over %d rows",
                step,
                *(values[name] for name in ("val_loss", "val_acc1", "val_mrr", "val_ndcg10", "val_rows")),
            )
        return values

    def _improves(self, step: int, val: dict[str, float]) -> bool:
        """Note a validation; True if it is the best so far."""
        value = quality(self.checkpoints.metric, val[self.checkpoints.metric])
        if not self._best or value > self._best[1]:
            self._best, self._since_best = [step, value], 0
            return True
        self._since_best += 1
        return False

    def _save(self, step: int, val: dict[str, float] | None, *, finished: bool) -> None:
        state: dict[str, Any] = {
            "schema_version": 2,
            "fingerprint": self.identity.fingerprint,
            "run_id": self.identity.run_id,
            "step": step,
            "epoch": self._epoch_of(step),
            "total_steps": self.schedule.total_steps,
            "finished": finished,
            "train_loss": sum(self._losses) / len(self._losses),
            "recent_losses": list(self._losses),
            "val": val,
            "best": self._best,
            "since_best": self._since_best,
            "totals": self.totals,
        }
        tensors = optimizer_tensors(self.optimizer, self.training.model.named_parameters())
        saved = self.checkpoints.save(state, tensors, self.training.save)
        log.info("checkpoint %s", saved.path.name)

    def _epoch_of(self, step: int) -> int:
        """Epoch (0-based) of the `step`-th step, counted from 1."""
        return self.schedule.position(step - 1)[0]


def memory_gib(device: torch.device) -> float:
    """Most memory held so far: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / 2**30

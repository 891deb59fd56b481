"""How many rows a step takes, how many steps there are, and what the learning rate is: pure arithmetic, no torch."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import PipelineError

SMALL_DATA_ROWS = 2000
FINAL_LR_SHARE = 0.01
FEW_STEPS = 50


@dataclass(frozen=True)
class ScheduleKeys:
    """What a person asked for: the configuration keys that shape the schedule."""

    num_epochs: int
    max_steps: int | None
    global_batch_size: int
    auto_scale_batch: bool
    local_batch_size: int
    learning_rate: float
    lr_warmup_steps: int
    lr_decay_style: str
    checkpoint_every_steps: int | None
    val_every_steps: int | None

    @classmethod
    def from_config(cls, config: Any) -> ScheduleKeys:
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Schedule:
    """The plan of a training run. Batches count queries; `explanation` says in words how each number came about."""

    rows: int
    world_size: int
    global_batch: int
    local_batch: int
    accumulation: int
    epochs: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    learning_rate: float
    decay: str
    checkpoint_every: int
    val_every: int
    explanation: tuple[str, ...] = ()

    def learning_rate_at(self, step: int) -> float:
        """Rate of step `step` (0-based): linear up to the peak, then cosine or linear down towards 1 % of it."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        left = 0.5 * (1 + math.cos(math.pi * done)) if self.decay == "cosine" else 1 - done
        return self.learning_rate * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * left)

    def position(self, step: int) -> tuple[int, slice]:
        """Epoch of step `step` (both 0-based) and its slice of the epoch's row order; the last one may be short."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return epoch, slice(within * self.global_batch, min(self.rows, (within + 1) * self.global_batch))


def plan_schedule(
    n_rows: int, keys: ScheduleKeys, *, world_size: int = 1, explicit: Collection[str] = frozenset()
) -> Schedule:
    """Plan a run over `n_rows` training rows in `world_size` processes.

    Args:
        explicit: keys a person set; these are kept exactly, all others may be fitted to the data.

    Raises:
        PipelineError: no row for every process, or an explicit batch that the processes cannot share evenly.
    """
    if n_rows < world_size:
        raise PipelineError(
            f"{n_rows} training rows for {world_size} processes: each needs one", fix="train on fewer processes"
        )
    keys, batch_lines = _fit_batch(n_rows, keys, world_size, explicit)
    steps_per_epoch = math.ceil(n_rows / keys.global_batch_size)
    total = min(steps_per_epoch * keys.num_epochs, keys.max_steps or math.inf)
    warmup, warmup_text = _fit_warmup(keys.lr_warmup_steps, int(total), "lr_warmup_steps" in explicit)
    checkpoint_every = (
        _fit_interval(keys.checkpoint_every_steps, int(total), "checkpoint_every_steps" in explicit)
        if keys.checkpoint_every_steps
        else min(steps_per_epoch, int(total))
    )
    val_every = (
        _fit_interval(keys.val_every_steps, int(total), "val_every_steps" in explicit)
        if keys.val_every_steps
        else checkpoint_every
    )
    stopped = f", stopped by max_steps={keys.max_steps}" if total < steps_per_epoch * keys.num_epochs else ""
    lines = [
        *batch_lines,
        f"steps: {n_rows} rows / {keys.global_batch_size} = {steps_per_epoch} per epoch, "
        f"{keys.num_epochs} epochs = {total} in all{stopped}",
        f"learning rate: {keys.learning_rate:g}, {warmup_text}, then {keys.lr_decay_style} to 1 %",
        f"every {checkpoint_every} steps a checkpoint, every {val_every} a validation",
    ]
    if total < FEW_STEPS:
        lines.append(f"only {total} steps: a smaller global_batch_size or more data would let the model learn more")
    return Schedule(
        rows=n_rows,
        world_size=world_size,
        global_batch=keys.global_batch_size,
        local_batch=keys.local_batch_size,
        accumulation=keys.global_batch_size // (keys.local_batch_size * world_size),
        epochs=keys.num_epochs,
        steps_per_epoch=steps_per_epoch,
        total_steps=int(total),
        warmup_steps=warmup,
        learning_rate=keys.learning_rate,
        decay=keys.lr_decay_style,
        checkpoint_every=checkpoint_every,
        val_every=val_every,
        explanation=tuple(lines),
    )


def _fit_batch(
    n_rows: int, keys: ScheduleKeys, world: int, explicit: Collection[str]
) -> tuple[ScheduleKeys, list[str]]:
    """Keys whose global batch is a multiple of local batch x processes, and the lines that explain it."""
    asked = keys.global_batch_size
    if "global_batch_size" in explicit:
        local = _share_explicit_batch(asked, keys.local_batch_size, world, "local_batch_size" in explicit)
        batch, reason = asked, "as you set it"
    else:
        scaled = keys.auto_scale_batch and n_rows < SMALL_DATA_ROWS
        target = min(n_rows, max(16, min(64, n_rows // 8)) if scaled else asked)
        batch, local = _nearest_batch(target, n_rows, keys.local_batch_size, world, "local_batch_size" in explicit)
        reason = f"scaled from {asked} for {n_rows} rows" if scaled and batch != asked else "as configured"
        if not scaled and batch != asked:
            reason = f"fitted from {asked} to the rows and processes"
    processes = f"{world} process{'es' if world > 1 else ''}"
    parts = f"{processes} x {batch // (local * world)} local batches of {local}"
    line = f"batch: {batch} queries per step ({reason}), {parts}"
    return replace(keys, global_batch_size=batch, local_batch_size=local), [line]


def _share_explicit_batch(batch: int, local: int, world: int, local_is_explicit: bool) -> int:
    """The local batch for a global batch that must stay; a local batch nobody set may shrink."""
    locals_allowed = [local] if local_is_explicit else range(local, 0, -1)
    for size in locals_allowed:
        if batch % (size * world) == 0:
            return size
    unit = local * world if local_is_explicit else world
    below, above = batch // unit * unit, (batch // unit + 1) * unit
    near = f"{below} or {above}" if below else f"{above}"
    by = f"local_batch_size {local} x {world} processes" if local_is_explicit else f"{world} processes"
    raise PipelineError(f"global_batch_size={batch} is not divisible by {by}", fix=f"set global_batch_size={near}")


def _nearest_batch(target: int, n_rows: int, local: int, world: int, local_is_explicit: bool) -> tuple[int, int]:
    """(batch, local batch): the multiple of local x processes nearest to `target` within the rows; ties go down."""
    if local_is_explicit and local * world > n_rows:
        raise PipelineError(
            f"local_batch_size={local} x {world} processes is more than the {n_rows} training rows",
            fix=f"set local_batch_size={n_rows // world} or less",
        )
    if not local_is_explicit:
        local = max(1, min(local, target // world))
    unit = local * world
    below, above = max(unit, target // unit * unit), (target // unit + 1) * unit
    return (above if above - target < target - below and above <= n_rows else below), local


def _fit_warmup(asked: int, total: int, is_explicit: bool) -> tuple[int, str]:
    if asked < total:
        return asked, f"{asked} steps of warm-up"
    # What a person set comes as near as it can; a default that is too long for the data becomes a tenth of it.
    fitted = total - 1 if is_explicit else total // 10
    return fitted, f"{fitted} steps of warm-up (lr_warmup_steps={asked} does not fit into {total})"


def _fit_interval(asked: int, total: int, is_explicit: bool) -> int:
    return asked if is_explicit or total >= 3 * asked else max(1, total // 3)

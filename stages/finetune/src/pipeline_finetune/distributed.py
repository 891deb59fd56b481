"""How the processes of one training run share work and gradients.

Data parallelism: every process holds the whole model, takes its part of each step's rows and averages gradients with
the others once per step. Gradients are averaged by hand and not through hooks, because a step may run backward many
times (GradCache) and must talk to the others once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from pipeline.retrieval.world import World

_BUCKET = 32 * 1024 * 1024
"""Gradient values sent at once: large enough for full speed, small enough to cost little memory."""


@dataclass(frozen=True)
class TrainingWorld(World):
    """The processes of a training run: they share every step's rows and average gradients."""

    def part(self, rows: np.ndarray) -> np.ndarray:
        """This process's rows of a step: every `size`-th, so that counts differ by one at most."""
        return rows[self.rank :: self.size]

    def total(self, values: list[float], device: torch.device) -> list[float]:
        """Sums over all processes, in one message."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(summed)
        return summed.tolist()

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; one without a gradient counts as zero."""
        if self.size == 1:
            return
        bucket: list[torch.nn.Parameter] = []
        filled = 0
        for parameter in (item for item in parameters if item.requires_grad):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter)
            filled += parameter.numel()
            if filled >= _BUCKET:
                self._average(bucket)
                bucket, filled = [], 0
        if bucket:
            self._average(bucket)

    def _average(self, parameters: list[torch.nn.Parameter]) -> None:
        flat = torch.cat([item.grad.float().flatten() for item in parameters])
        dist.all_reduce(flat)
        flat /= self.size
        for item, mean in zip(parameters, flat.split([item.numel() for item in parameters]), strict=True):
            item.grad.copy_(mean.view_as(item))

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """`values` [n, …] of every process in rank order, n may differ. Gradients flow back to where each came from."""
        if self.size == 1:
            return [values]
        counts = [torch.zeros(1, dtype=torch.long, device=values.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(values)], device=values.device))
        sizes = torch.cat(counts).tolist()
        padded = values.new_zeros((max(sizes), *values.shape[1:]))
        padded = torch.cat([values, padded[: max(sizes) - len(values)]])
        gathered = _Gather.apply(padded, self)
        return [gathered[rank, :size] for rank, size in enumerate(sizes)]


class _Gather(torch.autograd.Function):
    """all_gather whose backward pass sums what every process found for this one's part."""

    @staticmethod
    def forward(context, values: torch.Tensor, world: TrainingWorld) -> torch.Tensor:
        context.rank = world.rank
        parts = [torch.empty_like(values) for _ in range(world.size)]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[context.rank], None

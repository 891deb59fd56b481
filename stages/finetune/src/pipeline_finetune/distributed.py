"""The processes of one training run, as torchrun starts them; a lone process is a world of one.

Data parallelism: every process holds the whole model, takes its part of each step's rows and averages gradients with
the others once per step. Gradients are averaged by hand and not through hooks, because a step may run backward many
times (GradCache) and must talk to the others once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

_BUCKET = 32 * 1024 * 1024
"""Gradient values sent at once: large enough for full speed, small enough to cost little memory."""


@dataclass(frozen=True)
class World:
    """This process among `size` equal ones; rank 0 alone writes files and speaks to people."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, timeout_minutes: int) -> World:
        """Join the processes that torchrun started (environment RANK, WORLD_SIZE, …), if it did."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=timeout_minutes))
        return cls(dist.get_rank(), size)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def part(self, rows: np.ndarray) -> np.ndarray:
        """This process's rows of a step: every `size`-th, so that counts differ by one at most."""
        return rows[self.rank :: self.size]

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def total(self, values: list[float], device: torch.device) -> list[float]:
        """Sums over all processes, in one message."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(summed)
        return summed.tolist()

    def share(self, value: object) -> object:
        """Rank 0's value, everywhere."""
        if self.size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

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
    def forward(context, values: torch.Tensor, world: World) -> torch.Tensor:
        context.rank = world.rank
        parts = [torch.empty_like(values) for _ in range(world.size)]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[context.rank], None

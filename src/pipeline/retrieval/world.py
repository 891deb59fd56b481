"""The processes of one run, as torchrun starts them; a lone process is a world of one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from pipeline.errors import PipelineError

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class World:
    """This process among `size` equal ones; rank 0 alone writes files and speaks to people."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, timeout_minutes: int, device: str = "auto") -> World:
        """Join the processes that torchrun started (environment RANK, WORLD_SIZE, …), if it did.

        Each takes a GPU of its own, unless `device` is "cpu" or there is none.

        Raises:
            PipelineError: more processes than GPUs.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        cuda = device != "cpu" and torch.cuda.is_available()
        if cuda:
            here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
            if here > gpus:
                raise PipelineError(f"{here} processes for {gpus} GPUs", fix=f"nproc_per_node={gpus}, or device=cpu")
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        _die_with_parent()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=timeout_minutes))
        return cls(dist.get_rank(), size)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def share(self, value: Any) -> Any:
        """Rank 0's value, everywhere."""
        if self.size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def on_first(self, count: int, work: Callable[[slice], Any], at_once: int) -> list[Any]:
        """Results of `work` on parts of `count` things, done by the first process alone, known to all.

        Part by part, because the others wait for each and give up after the time-out.
        """
        parts = [slice(start, min(start + at_once, count)) for start in range(0, count, at_once)]
        return [self.share(work(part) if self.leads else None) for part in parts]

    def gather_objects(self, value: Any) -> list[Any]:
        """`value` of every process in rank order, everywhere."""
        if self.size == 1:
            return [value]
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, value)
        return every


def _die_with_parent() -> None:
    """Ask Linux to kill this process when torchrun dies, however it dies: nobody else would."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

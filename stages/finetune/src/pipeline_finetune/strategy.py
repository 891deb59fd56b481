"""What the trainer asks of a family of models; everything else about training is shared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from pipeline_finetune.data import MISSING, RowTable, TrainingData
from pipeline_finetune.distributed import TrainingWorld
from pipeline_finetune.steps import StepResult


class Training(Protocol):
    """One family's way to train: `EmbedTraining` for bi-encoders, `RerankTraining` for cross-encoders."""

    model: nn.Module
    data: TrainingData
    device: torch.device

    def step(self, rows: np.ndarray) -> StepResult:
        """Add the gradients of the mean loss over this process's part of training rows `rows` (int64 [B])."""

    def names(self, rows: np.ndarray) -> list[str]:
        """Question ids of training rows, for messages."""

    def validate(self) -> dict[str, float] | None:
        """val_loss, val_acc1, val_mrr and val_ndcg10 over the validation rows, None without any."""

    def save(self, folder: Path) -> Path:
        """Write a model folder that loads anywhere."""


@dataclass(frozen=True)
class Compute:
    """How a step is computed.

    Attributes:
        dtype: type of the forward pass (weights stay in fp32).
        micro_tokens: tokens through the model at once.
        held_tokens: tokens whose activations are held at once.
        local_batch: rows at a time where a step does not fit and its rows do not compete with each other.
        pad_to_multiple_of: batches are padded to a multiple of this; None pads to the longest text.
    """

    dtype: torch.dtype
    micro_tokens: int
    held_tokens: int
    local_batch: int
    pad_to_multiple_of: int | None = None


def own_rows(rows: np.ndarray, world: TrainingWorld) -> tuple[np.ndarray, float]:
    """This process's rows of a step and their share of it.

    A process left without rows by a short last step takes part with another's row that counts nothing: all must meet
    in every exchange.
    """
    mine = world.part(rows)
    return (mine, len(mine) / len(rows)) if len(mine) else (rows[world.rank % len(rows)][None], 0.0)


def in_local_batches(rows: np.ndarray, share: float, size: int) -> list[tuple[np.ndarray, float]]:
    """`rows` cut into groups of `size`, each with its part of `share`."""
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [(part, share * len(part) / len(rows)) for part in parts]


def rows_with_negatives(table: RowTable) -> np.ndarray:
    """Rows that can be ranked: int64, those that name a negative at all."""
    return np.flatnonzero((table.negatives != MISSING).any(axis=1))

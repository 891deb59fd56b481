"""What the trainer asks of a family of models; everything else about training is shared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class StepResult:
    """One step's loss and the work it took.

    Attributes:
        loss: mean over the step's rows.
        tokens: real tokens read. padded_tokens: tokens computed, padding included.
        flops: multiplications and additions of forward and backward over the real tokens, each counted as one.
    """

    loss: float
    tokens: int
    padded_tokens: int
    flops: float


class Training(Protocol):
    """One family's way to train: `EmbedTraining` for bi-encoders; the cross-encoder's stands beside it."""

    model: nn.Module
    device: torch.device

    def step(self, rows: np.ndarray) -> StepResult:
        """Add the gradients of the mean loss over training rows `rows` (int64 [B]) to the parameters."""

    def names(self, rows: np.ndarray) -> list[str]:
        """Question ids of training rows, for messages."""

    def validate(self) -> dict[str, float] | None:
        """val_loss, val_acc1 and val_mrr over the validation rows, None without any."""

    def save(self, folder: Path) -> Path:
        """Write a model folder that loads anywhere."""

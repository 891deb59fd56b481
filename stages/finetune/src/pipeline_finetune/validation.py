"""Validation inside each question's own group of passages: the same numbers for every family."""

from __future__ import annotations

import torch
from torch import nn


def ranking_metrics(scores: torch.Tensor, temperature: float) -> dict[str, float]:
    """How well positives stand against their own negatives.

    Args:
        scores: fp32 [n, 1 + k], the positive's score first; -inf where a row has fewer negatives.

    Returns:
        val_loss (mean softmax loss at `temperature`), val_acc1 (share ranked first), val_mrr (mean 1 / rank), val_rows.
        A tie counts against the positive.
    """
    target = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    ranks = (1 + (scores[:, 1:] >= scores[:, :1]).sum(1)).float()
    return {
        "val_loss": float(nn.functional.cross_entropy(scores / temperature, target)),
        "val_acc1": float((ranks == 1).float().mean()),
        "val_mrr": float((1 / ranks).mean()),
        "val_rows": len(scores),
    }

"""What validation measures: the same numbers for every family."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline_finetune.tokens import Ragged


def ranking_metrics(scores: torch.Tensor, temperature: float) -> dict[str, float]:
    """How well positives stand against their own negatives.

    Args:
        scores: fp32 [n, 1 + k], the positive's score first; -inf where a row has fewer negatives.

    Returns:
        val_loss (mean softmax loss at `temperature`), val_acc1 (share ranked first), val_mrr (mean 1 / rank),
        val_ndcg10 (within these lists), val_rows. A tie counts against the positive.
    """
    target = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    ranks = (1 + (scores[:, 1:] >= scores[:, :1]).sum(1)).double()
    gains = torch.where(ranks <= 10, 1 / torch.log2(ranks + 1), 0.0)
    loss = nn.functional.cross_entropy(scores / temperature, target).double()
    numbers = torch.stack([loss, (ranks == 1).double().mean(), (1 / ranks).mean(), gains.mean()]).tolist()
    return dict(zip(("val_loss", "val_acc1", "val_mrr", "val_ndcg10"), numbers, strict=True)) | {
        "val_rows": len(scores)
    }


def ndcg_at_10(ranked: np.ndarray, relevant: Ragged) -> float:
    """Mean nDCG@10 of a search with binary relevance (Järvelin and Kekäläinen, 2002, https://doi.org/10.1145/582415.582418).

    Args:
        ranked: int [n, at most 10], passages found for each question, best first.
        relevant: the passages that answer each question, at least one.
    """
    discounts = 1 / np.log2(np.arange(2, 12))
    found = np.stack([np.isin(row, relevant[number]) for number, row in enumerate(ranked)])
    gains = (found * discounts[: ranked.shape[1]]).sum(1)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(relevant.counts, 10)]
    return float((gains / ideal).mean())

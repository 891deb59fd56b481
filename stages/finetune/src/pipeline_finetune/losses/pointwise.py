"""Pointwise BCE: each pair of query and passage is relevant or not, by itself."""

from __future__ import annotations

import torch
from torch import nn

from pipeline_finetune.losses.base import TemperedLoss, row_mean


class PointwiseBCE(TemperedLoss):
    """Binary cross-entropy with logits of every candidate: 1 for the positive, 0 for the others.

    For query `i`: the mean over its candidates `j` of ``-log(sigmoid(s_ij / t))`` if `j` is the positive, else
    ``-log(1 - sigmoid(s_ij / t))``; then the mean over queries. Positives get no extra weight: with 1 positive and 4
    negatives a query's positive has one fifth of its loss. Scores become calibrated odds that compare across queries,
    at the price of a weaker ranking signal than `ListwiseSoftmax`.

    Reference: Nogueira and Cho, "Passage Re-ranking with BERT", 2019 (https://arxiv.org/abs/1901.04085).

    Relations: equals sentence-transformers' BinaryCrossEntropyLoss at its defaults (the plain mean over pairs) when
    all queries have equally many candidates; a query with fewer weighs as much as the others here, less there.

    Args:
        temperature: > 0; 1 leaves the scores as the head gives them.
    """

    def forward(
        self,
        scores: torch.Tensor,
        positive: torch.Tensor,
        candidates: torch.Tensor,
        teacher: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `Loss`; `teacher` is not used."""
        labels = torch.zeros_like(scores).scatter_(1, positive[:, None], 1)
        logits = (scores / self.temperature).masked_fill(~candidates, 0)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return row_mean(losses, candidates)

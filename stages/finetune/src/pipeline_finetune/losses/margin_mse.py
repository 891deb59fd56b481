"""MarginMSE: learn the distance that a teacher sees between the positive and each negative."""

from __future__ import annotations

import torch
from torch import nn

from pipeline_finetune.losses.base import row_mean, scored_by_teacher


class MarginMSE(nn.Module):
    """Squared error between the student's and the teacher's margin of positive over negative.

    For query `i` with positive `p`: the mean over its negatives `j` of ``((s_ip - s_ij) - (t_ip - t_ij))^2``; then the
    mean over queries. Only margins matter, so student and teacher may differ by an offset per query, but not in
    scale: a bi-encoder of unit vectors cannot have margins above 2, and a teacher's logits must be brought to that
    range first (or take `DistillKL`). Candidates without a teacher score are left out; a query whose positive has
    none, or whose negatives all have none, adds 0.

    Reference: Hofstätter et al., "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation", 2020 (https://arxiv.org/abs/2010.02666).

    Relations: equals sentence-transformers' MarginMSELoss when all queries have equally many scored negatives.
    """

    needs_teacher = True

    def forward(
        self,
        scores: torch.Tensor,
        positive: torch.Tensor,
        candidates: torch.Tensor,
        teacher: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `Loss`.

        Raises:
            ValueError: `teacher` is None.
        """
        known, teacher = scored_by_teacher(candidates, teacher)
        column = positive[:, None]
        pairs = known & known.gather(1, column)
        pairs = pairs.scatter(1, column, False)
        errors = _margins(scores.masked_fill(~known, 0), column) - _margins(teacher, column)
        return row_mean(errors.square(), pairs)


def _margins(scores: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """How far each row's positive (at `column`, [B, 1]) stands above every column: [B, P]."""
    return scores.gather(1, column) - scores

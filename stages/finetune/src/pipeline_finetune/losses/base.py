"""What a loss over scores is, and the two formulas that several losses share."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn


class Loss(Protocol):
    """A loss over the scores of a step's queries and passages: the mean over the queries of this process.

    A query counts as one whatever the number of its candidates, so a step that is cut into groups of queries, or
    spread over processes, has the loss and the gradients of the whole step: the mean of its parts, weighted by rows.

    Attributes:
        needs_teacher: True for losses that compare with a teacher's scores.
    """

    needs_teacher: bool

    def __call__(
        self,
        scores: torch.Tensor,
        positive: torch.Tensor,
        candidates: torch.Tensor,
        teacher: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean loss over rows, an fp32 scalar with a gradient.

        Args:
            scores: fp32 [B, P], query x passage, not yet divided by a temperature.
            positive: int64 [B], column of each row's positive.
            candidates: bool [B, P], True where the passage competes for the query; the positive's column is True.
            teacher: fp32 [B, P], the teacher's scores, NaN where unknown; None if the rows carry none.
        """
        ...


class TemperedLoss(nn.Module):
    """A loss whose scores are divided by a temperature (> 0; 1 leaves them as they are)."""

    needs_teacher = False

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature


class SoftmaxLoss(TemperedLoss):
    """`softmax_loss` as a `Loss`."""

    def forward(
        self,
        scores: torch.Tensor,
        positive: torch.Tensor,
        candidates: torch.Tensor,
        teacher: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `Loss`; `teacher` is not used."""
        return softmax_loss(scores, positive, candidates, self.temperature)


def softmax_loss(
    scores: torch.Tensor, positive: torch.Tensor, candidates: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Mean cross-entropy of the positive in the softmax of a row's candidates, scores divided by `temperature`.

    A row whose positive has no rival loses 0 and gets no gradient. Shapes as in `Loss`.
    """
    return nn.functional.cross_entropy((scores / temperature).masked_fill(~candidates, -torch.inf), positive)


def row_mean(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mean over rows of each row's mean over its `chosen` columns; a row without any gives 0.

    Args:
        values: fp32 [B, P]; finite where chosen, anything (also NaN) elsewhere.
        chosen: bool [B, P].
    """
    return (values.masked_fill(~chosen, 0).sum(1) / chosen.sum(1).clamp(min=1)).mean()


def scored_by_teacher(candidates: torch.Tensor, teacher: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The candidates whose teacher score is known, bool [B, P], and the teacher's scores with 0 elsewhere, [B, P].

    Raises:
        ValueError: there are no teacher scores at all.
    """
    if teacher is None:
        raise ValueError("this loss compares with a teacher's scores, and none were given")
    known = candidates & ~teacher.isnan()
    return known, teacher.masked_fill(~known, 0)

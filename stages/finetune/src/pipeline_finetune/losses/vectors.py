"""From vectors to a loss: score every query against every passage, drop likely false negatives, compare."""

from __future__ import annotations

import torch
from torch import nn

from pipeline_finetune.losses.base import Loss
from pipeline_finetune.similarity import Similarity


class VectorLoss(nn.Module):
    """A loss over scores, for vectors of queries and passages.

    With a margin, passages that the model itself takes to be as good as the positive are no negatives: a passage of
    another row whose score is above the positive's minus the margin is left out (0: at most as good as the positive;
    0.05: clearly worse, too). A row's own negatives were chosen for it and always stay.

    Reference: Solatorio, "GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding
    Fine-tuning", 2024 (https://arxiv.org/abs/2402.16829). There a second, frozen model guides; here the model in
    training judges its own current scores, which costs nothing and needs a base model that is already good.

    Args:
        loss: over scores.
        similarity: `dot` or `late_interaction`.
        false_negative_margin: in the units of the scores (cosine for unit vectors); None keeps every candidate.
    """

    def __init__(self, loss: Loss, similarity: Similarity, *, false_negative_margin: float | None = None) -> None:
        super().__init__()
        self.loss, self.similarity, self.false_negative_margin = loss, similarity, false_negative_margin

    @property
    def needs_teacher(self) -> bool:
        return self.loss.needs_teacher

    def forward(
        self,
        queries: torch.Tensor,
        passages: torch.Tensor,
        positive: torch.Tensor,
        candidates: torch.Tensor,
        teacher: torch.Tensor | None = None,
        own: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean loss over queries, an fp32 scalar.

        Args:
            queries: [B, D], or [B, Lq, D] for late interaction. passages: [P, D] or [P, Lp, D].
            positive, candidates, teacher: as in `Loss`.
            own: bool [B, P], True at a row's own passages, its positive included; needed with a margin.

        Raises:
            ValueError: a margin without `own`.
        """
        scores = self.similarity(queries, passages)
        return self.loss(scores, positive, self.competing(scores, positive, candidates, own), teacher)

    def competing(
        self, scores: torch.Tensor, positive: torch.Tensor, candidates: torch.Tensor, own: torch.Tensor | None
    ) -> torch.Tensor:
        """The candidates less likely false negatives, bool [B, P]."""
        if self.false_negative_margin is None:
            return candidates
        if own is None:
            raise ValueError("false_negative_margin needs to know which passages are a row's own")
        scores = scores.detach()
        limit = scores.gather(1, positive[:, None]) - self.false_negative_margin
        return candidates & (own | (scores <= limit))

"""DistillKL: learn the whole distribution that a teacher gives a query's candidates."""

from __future__ import annotations

import torch

from pipeline_finetune.losses.base import TemperedLoss, scored_by_teacher


class DistillKL(TemperedLoss):
    """Kullback-Leibler divergence of the student's softmax from the teacher's, over a query's scored candidates.

    For query `i` with teacher scores `t_ij`: ``T^2 * sum_j p_ij * (log p_ij - log q_ij)`` where the candidates `j` are
    those whose teacher score is known, ``p_i = softmax(t_i / T)`` and ``q_i = softmax(s_i / T)``; then the mean over
    queries. The factor T^2 keeps the size of the gradients when T changes. Both are divided by the same T, so scores
    and teacher's scores should be on one scale. A query with fewer than two scored candidates adds 0.

    Reference: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (https://arxiv.org/abs/1503.02531);
    for retrieval Lin et al., "Distilling Dense Representations for Ranking using Tightly-Coupled Teachers", 2020
    (https://arxiv.org/abs/2010.11386).

    Relations: equals sentence-transformers' DistillKLDivLoss at the same temperature. The positive is just one of the
    candidates; `InfoNCE` is the case of a teacher who puts everything on it (but for T^2).

    Args:
        temperature: > 0, for student and teacher. Large values look at all candidates, small ones at the best.
    """

    needs_teacher = True

    def forward(
        self,
        scores: torch.Tensor,
        positive: torch.Tensor,
        candidates: torch.Tensor,
        teacher: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `Loss`; `positive` is not used.

        Raises:
            ValueError: `teacher` is None.
        """
        known, teacher = scored_by_teacher(candidates, teacher)
        student_log = self._log_softmax(scores, known)
        teacher_log = self._log_softmax(teacher, known)
        divergence = (teacher_log.exp() * (teacher_log - student_log)).sum(1)
        return self.temperature**2 * divergence.mean()

    def _log_softmax(self, scores: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Over the known columns; the others get the lowest number and not -inf, which could end in a NaN."""
        lowest = torch.finfo(scores.dtype).min
        return (scores / self.temperature).masked_fill(~known, lowest).log_softmax(1)

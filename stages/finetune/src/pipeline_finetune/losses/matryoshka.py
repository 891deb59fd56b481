"""Matryoshka: train the first dimensions of the vectors as vectors of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline_finetune.losses.vectors import VectorLoss


class Matryoshka(nn.Module):
    """Mean of a loss over several widths: the full vectors, and the same vectors cut to their first dimensions.

    Vectors trained like this may be cut when they are used, for less storage and faster search. The mean (not the sum)
    keeps losses, and what gradient clipping does to them, comparable with training without it. Who competes is decided
    once, at full width, where scores are most reliable.

    Reference: Kusupati et al., "Matryoshka Representation Learning", 2022 (https://arxiv.org/abs/2205.13147).

    Relations: sentence-transformers' MatryoshkaLoss is the sum over widths and always normalises.

    Args:
        inner: the loss at one width.
        dims: shorter widths, in any order; repeated ones count once, the full width is always trained.
        width: dimensions of the full vectors.
        normalize: bring cut vectors to unit length again, as full vectors of this model are.

    Raises:
        PipelineError: a width that is not between 1 and `width`.
    """

    def __init__(self, inner: VectorLoss, dims: Sequence[int], *, width: int, normalize: bool) -> None:
        super().__init__()
        wrong = [size for size in dims if not 1 <= size <= width]
        if wrong:
            raise PipelineError(
                f"matryoshka_dims names {wrong[0]}, but the model's vectors have {width} dimensions",
                fix=f"name sizes below {width}",
            )
        self.inner, self.normalize = inner, normalize
        self.shorter = sorted(set(dims) - {width}, reverse=True)

    @property
    def needs_teacher(self) -> bool:
        return self.inner.needs_teacher

    def forward(
        self,
        queries: torch.Tensor,
        passages: torch.Tensor,
        positive: torch.Tensor,
        candidates: torch.Tensor,
        teacher: torch.Tensor | None = None,
        own: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As `VectorLoss`; the last dimension of `queries` and `passages` is the one that is cut."""
        scores = self.inner.similarity(queries, passages)
        candidates = self.inner.competing(scores, positive, candidates, own)
        total = self.inner.loss(scores, positive, candidates, teacher)
        for size in self.shorter:
            scores = self.inner.similarity(self._cut(queries, size), self._cut(passages, size))
            total = total + self.inner.loss(scores, positive, candidates, teacher)
        return total / (1 + len(self.shorter))

    def _cut(self, vectors: torch.Tensor, size: int) -> torch.Tensor:
        vectors = vectors[..., :size].float()
        return nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors

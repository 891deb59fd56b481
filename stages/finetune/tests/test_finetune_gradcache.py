"""Gradients through cached outputs equal those of one direct pass, for every loss, with dropout on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_finetune.backward import backward
from pipeline_finetune.losses.infonce import InfoNCE
from pipeline_finetune.losses.kl import DistillKL
from pipeline_finetune.losses.listwise import ListwiseSoftmax
from pipeline_finetune.losses.margin_mse import MarginMSE
from pipeline_finetune.losses.matryoshka import Matryoshka
from pipeline_finetune.losses.pointwise import PointwiseBCE
from pipeline_finetune.losses.vectors import VectorLoss
from pipeline_finetune.similarity import dot, late_interaction
from torch import nn

CPU = torch.device("cpu")
QUERIES, PASSAGES, WIDTH, LONGEST = 4, 9, 8, 5
N = QUERIES + PASSAGES
POSITIVE = torch.tensor([0, 3, 3, 8])
LOSSES = [InfoNCE(0.1), ListwiseSoftmax(1.0), PointwiseBCE(1.0), MarginMSE(), DistillKL(0.5)]


class Encoder(nn.Module):
    """Token ids to unit vectors, with dropout: one per text, or one per token with zeros at padding."""

    def __init__(self, per_token: bool) -> None:
        super().__init__()
        self.embedding, self.dropout, self.out = nn.Embedding(20, 16), nn.Dropout(0.3), nn.Linear(16, WIDTH)
        self.per_token = per_token

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        real = (ids > 0)[..., None]
        hidden = self.out(torch.tanh(self.dropout(self.embedding(ids)))) * real
        pooled = hidden if self.per_token else hidden.sum(1) / real.sum(1)
        return nn.functional.normalize(pooled, dim=-1)


def token_ids() -> torch.Tensor:
    """Texts of 1 to LONGEST tokens, padded with 0: int64 [N, LONGEST]."""
    random = torch.Generator().manual_seed(7)
    ids = torch.randint(1, 20, (N, LONGEST), generator=random)
    lengths = torch.randint(1, LONGEST + 1, (N, 1), generator=random)
    return ids.masked_fill(torch.arange(LONGEST) >= lengths, 0)


def masks() -> dict[str, torch.Tensor]:
    """Candidates with holes, a teacher who knows most of them, and every row's own passages."""
    random = torch.Generator().manual_seed(8)
    candidates = torch.rand(QUERIES, PASSAGES, generator=random) < 0.7
    candidates[torch.arange(QUERIES), POSITIVE] = True
    teacher = torch.randn(QUERIES, PASSAGES, generator=random)
    teacher[torch.rand(QUERIES, PASSAGES, generator=random) < 0.3] = torch.nan
    own = torch.zeros(QUERIES, PASSAGES, dtype=torch.bool).scatter_(1, POSITIVE[:, None], True)
    return {"candidates": candidates, "teacher": teacher, "own": own}


def gradients(
    encoder: nn.Module, loss: Callable[..., torch.Tensor], batches: Sequence[Sequence[int]], *, held: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Loss, gradients by parameter name, and a random number that is drawn after the step."""
    ids, how = token_ids(), masks()
    encoder.zero_grad()
    torch.manual_seed(11)
    value = backward(
        lambda items: encoder(ids[list(items)]),
        batches,
        lambda vectors: loss(vectors[:QUERIES], vectors[QUERIES:], POSITIVE, **how),
        held=held,
        device=CPU,
    )
    return value, {name: item.grad.clone() for name, item in encoder.named_parameters()}, torch.rand(3)


def assert_cached_equals_direct(loss: nn.Module, *, per_token: bool, batches: Sequence[Sequence[int]]) -> None:
    torch.manual_seed(2)
    encoder = Encoder(per_token)
    direct, wanted, after = gradients(encoder, loss, batches, held=len(batches))
    for held in range(len(batches)):
        cached, found, after_cached = gradients(encoder, loss, batches, held=held)
        assert torch.equal(cached, direct) and not cached.requires_grad
        assert torch.equal(after, after_cached), "what is drawn after the step must not depend on how it was computed"
        for name, gradient in wanted.items():
            assert gradient.abs().max() > 1e-4, f"{name} must be trained for the comparison to say anything"
            assert (gradient - found[name]).abs().max() < 1e-5, name


BATCHES = [[12, 0, 5], [1, 2, 3, 4], [6], [11, 10, 9, 8, 7]]
"""Queries and passages mixed, out of order, as length-sorted batches are."""


@pytest.mark.parametrize("per_token", [False, True], ids=["dot", "maxsim"])
@pytest.mark.parametrize("margin", [None, 0.05])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_cached_gradients_equal_direct_ones(loss, margin, per_token):
    similarity = late_interaction if per_token else dot
    loss = VectorLoss(loss, similarity, false_negative_margin=margin)
    assert_cached_equals_direct(loss, per_token=per_token, batches=BATCHES)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_matryoshka_too(loss):
    loss = Matryoshka(VectorLoss(loss, dot, false_negative_margin=0.05), [4, 2], width=WIDTH, normalize=True)
    assert_cached_equals_direct(loss, per_token=False, batches=BATCHES)


@given(order=st.permutations(range(N)), cuts=st.sets(st.integers(1, N - 1), max_size=6))
@settings(max_examples=25, deadline=None)
def test_any_order_and_any_cut(order, cuts):
    edges = [0, *sorted(cuts), N]
    batches = [order[start:end] for start, end in pairwise(edges)]
    assert_cached_equals_direct(VectorLoss(InfoNCE(0.1), dot), per_token=False, batches=batches)


def test_a_share_of_a_step_scales_its_gradients():
    """A step in two groups adds their gradients: each group's loss is weighted by its share."""
    encoder = Encoder(per_token=False).eval()
    whole, wanted, _ = gradients(encoder, VectorLoss(InfoNCE(0.1), dot), BATCHES, held=0)
    part, found, _ = gradients(encoder, lambda *a, **how: 0.25 * VectorLoss(InfoNCE(0.1), dot)(*a, **how), BATCHES,
                               held=0)  # fmt: skip
    assert torch.allclose(part, 0.25 * whole)
    assert all(torch.allclose(found[name], 0.25 * gradient, atol=1e-6) for name, gradient in wanted.items())


def test_dropout_was_on():
    """Without the same masks in both passes the gradients would differ: other masks give another loss."""
    torch.manual_seed(2)
    encoder, loss = Encoder(per_token=False), VectorLoss(InfoNCE(0.1), dot)
    trained, _, _ = gradients(encoder, loss, BATCHES, held=len(BATCHES))
    frozen, _, _ = gradients(encoder.eval(), loss, BATCHES, held=len(BATCHES))
    assert trained != frozen

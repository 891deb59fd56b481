"""Scores of vectors: late interaction against a loop over tokens, Matryoshka against its parts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_finetune import similarity
from pipeline_finetune.losses.infonce import InfoNCE
from pipeline_finetune.losses.kl import DistillKL
from pipeline_finetune.losses.matryoshka import Matryoshka
from pipeline_finetune.losses.vectors import VectorLoss
from pipeline_finetune.similarity import dot, late_interaction, maxsim
from torch.nn.functional import normalize

from pipeline.errors import PipelineError


def slow_maxsim(queries, query_mask, passages, passage_mask) -> torch.Tensor:
    """Token by token, over real tokens alone."""
    rows = []
    for query, query_real in zip(queries, query_mask, strict=True):
        scores = []
        for passage, passage_real in zip(passages, passage_mask, strict=True):
            best = [max(token @ other for other in passage[passage_real]) for token in query[query_real]]
            scores.append(sum(best))
        rows.append(torch.stack(scores))
    return torch.stack(rows)


def ragged_mask(lengths: list[int], left: bool) -> torch.Tensor:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return mask.flip(1) if left else mask


@given(
    queries=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    passages=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    left=st.booleans(),
    elements=st.sampled_from([1, 40, 10**6]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_maxsim_and_its_gradient_equal_a_loop_over_tokens(queries, passages, left, elements, seed):
    random = torch.Generator().manual_seed(seed)
    masks = [ragged_mask(queries, left), ragged_mask(passages, left)]
    # Padding holds large numbers: it would win every maximum if it counted. All dot products of tokens are negative.
    tokens = [torch.rand(*mask.shape, 3, generator=random) for mask in masks]
    tokens = [
        (sign * item).masked_fill(~mask[..., None], 50).requires_grad_()
        for sign, item, mask in zip((1, -1), tokens, masks, strict=True)
    ]
    scores = maxsim(tokens[0], masks[0], tokens[1], masks[1], elements=elements)
    expected = slow_maxsim(tokens[0], masks[0], tokens[1], masks[1])
    assert torch.allclose(scores, expected, atol=1e-5)
    weights = torch.randn(*scores.shape, generator=random)
    found = torch.autograd.grad((weights * scores).sum(), tokens)
    wanted = torch.autograd.grad((weights * expected).sum(), tokens)
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(found, wanted, strict=True))


def test_maxsim_holds_a_bounded_number_of_token_pairs(monkeypatch):
    held, block_of = [], similarity._maxsim_block

    def recorded(*block: torch.Tensor) -> torch.Tensor:
        held.append(2 * 3 * len(block[2]) * 5)
        return block_of(*block)

    monkeypatch.setattr(similarity, "_maxsim_block", recorded)
    kept = []
    queries, passages = torch.randn(2, 3, 4, requires_grad=True), torch.randn(7, 5, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(saved.numel()) or saved, lambda x: x):
        maxsim(queries, torch.ones(2, 3).bool(), passages, torch.ones(7, 5).bool(), elements=65).sum().backward()
    assert held == [60, 60, 60, 30], "blocks of two passages, then what is left"
    assert max(kept) < 60, "no table of token pairs is kept for the backward pass"


def test_zero_vectors_are_padding():
    mask = [ragged_mask([2, 3], False), ragged_mask([1, 4, 2], True)]
    queries, passages = (normalize(torch.randn(*item.shape, 4), dim=-1) * item[..., None] for item in mask)
    assert torch.equal(late_interaction(queries, passages), maxsim(queries, mask[0], passages, mask[1]))


def test_more_padding_changes_no_score():
    queries, passages = normalize(torch.randn(2, 3, 4), dim=-1), -normalize(torch.randn(3, 5, 4), dim=-1)
    scores = late_interaction(queries, passages)
    pad = torch.nn.functional.pad
    assert torch.allclose(late_interaction(pad(queries, (0, 0, 0, 2)), pad(passages, (0, 0, 1, 4))), scores, atol=1e-6)


def test_a_passage_without_tokens_scores_minus_infinity_and_gets_no_gradient():
    queries = torch.randn(1, 2, 4, requires_grad=True)
    passages = torch.randn(2, 3, 4) * torch.tensor([1.0, 0.0])[:, None, None]
    passages.requires_grad_()
    scores = late_interaction(queries, passages)
    assert scores[0, 1] == -torch.inf
    InfoNCE(0.1)(scores, torch.tensor([0]), torch.tensor([[True, False]])).backward()
    assert queries.grad.isfinite().all() and (passages.grad[1] == 0).all()


def test_scores_are_fp32_whatever_the_vectors_are():
    single, tokens = torch.randn(2, 4).bfloat16(), torch.randn(2, 3, 4).bfloat16()
    assert dot(single, single).dtype == late_interaction(tokens, tokens).dtype == torch.float32
    assert torch.allclose(dot(single, single), single.float() @ single.float().T)


@pytest.fixture
def step():
    torch.manual_seed(3)
    queries, passages = normalize(torch.randn(3, 8), dim=-1), normalize(torch.randn(6, 8), dim=-1)
    return queries, passages, torch.tensor([0, 2, 5]), torch.ones(3, 6, dtype=torch.bool)


@pytest.mark.parametrize("normalized", [True, False])
def test_matryoshka_is_the_mean_over_widths(step, normalized):
    queries, passages, positive, candidates = step
    loss = Matryoshka(VectorLoss(InfoNCE(0.2), dot), [2, 4, 8, 4], width=8, normalize=normalized)
    parts = []
    for size in (8, 4, 2):
        cut = [normalize(item[:, :size], dim=-1) if normalized else item[:, :size] for item in (queries, passages)]
        parts.append(InfoNCE(0.2)(cut[0] @ cut[1].T, positive, candidates))
    assert torch.allclose(loss(*step), torch.stack(parts).mean())


def test_matryoshka_without_shorter_widths_is_the_inner_loss(step):
    inner = VectorLoss(InfoNCE(0.2), dot)
    for dims in ([], [8]):
        assert Matryoshka(inner, dims, width=8, normalize=True)(*step) == inner(*step)


def test_matryoshka_masks_false_negatives_once_at_full_width(step):
    queries, passages, positive, candidates = step
    own = torch.zeros_like(candidates).scatter_(1, positive[:, None], True)
    inner = VectorLoss(InfoNCE(0.2), dot, false_negative_margin=0.0)
    kept = inner.competing(dot(queries, passages), positive, candidates, own)
    assert kept.sum() < candidates.sum(), "the margin must remove something here"
    plain = Matryoshka(VectorLoss(InfoNCE(0.2), dot), [3], width=8, normalize=True)
    loss = Matryoshka(inner, [3], width=8, normalize=True)
    assert loss(*step, own=own) == plain(queries, passages, positive, kept)
    assert loss(*step, own=own) != plain(*step)


def test_matryoshka_refuses_widths_that_the_vectors_do_not_have():
    inner = VectorLoss(InfoNCE(0.2), dot)
    for size in (0, 9):
        with pytest.raises(PipelineError, match=rf"names {size}, but the model's vectors have 8") as error:
            Matryoshka(inner, [4, size], width=8, normalize=True)
        assert "below 8" in error.value.fix


def test_wrappers_say_whether_a_teacher_is_needed(step):
    for loss in (InfoNCE(1.0), DistillKL(1.0)):
        inner = VectorLoss(loss, dot)
        outer = Matryoshka(inner, [4], width=8, normalize=True)
        assert inner.needs_teacher == outer.needs_teacher == loss.needs_teacher
    teacher = torch.randn(3, 6)
    assert outer(*step, teacher).item() > 0

"""Who competes with whom: by hand, against a slow loop, and over several processes as in one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_finetune.data import MISSING
from pipeline_finetune.groups import Group, make_group, merge_ranks
from pipeline_finetune.losses.infonce import InfoNCE
from pipeline_finetune.losses.vectors import VectorLoss
from pipeline_finetune.similarity import dot
from pipeline_finetune.tokens import Ragged


def make_table(positive, negatives, known, teacher=None) -> SimpleNamespace:
    """The arrays of a `RowTable` that say who competes."""
    counts, values = [len(row) for row in known], [item for row in known for item in row]
    return SimpleNamespace(
        positive=np.array(positive),
        negatives=np.array(negatives),
        known=Ragged(np.cumsum([0, *counts]), np.array(values, np.int64)),
        teacher=None if teacher is None else np.array(teacher, np.float32),
    )


def competing(group: Group) -> list[set[int]]:
    """Passages that compete for each row."""
    return [set(group.passages[row].tolist()) for row in group.candidates]


# Rows 0 and 1 share document 5; row 2's question has a sibling positive, 8, which is row 3's positive (the same
# question, unrolled); row 4 has one negative less.
TABLE = make_table(
    positive=[5, 5, 7, 8, 1],
    negatives=[[1, 2], [2, 3], [3, 5], [5, 4], [2, MISSING]],
    known=[[5], [5], [7, 8], [7, 8], [1]],
    teacher=[[9, 1, 2], [9, 2, 3], [9, 3, 5], [9, 5, 4], [9, 2, np.nan]],
)
ALL = np.arange(5)


def test_hard_negatives_only_compete_for_their_own_row():
    group = make_group(TABLE, ALL, in_batch_negatives=False)
    assert competing(group) == [{5, 1, 2}, {5, 2, 3}, {7, 3, 5}, {8, 5, 4}, {1, 2}]
    assert group.passages.tolist() == [1, 2, 3, 4, 5, 7, 8], "each distinct passage is one column"
    assert group.passages[group.positive].tolist() == [5, 5, 7, 8, 1]


def test_in_batch_every_passage_competes_but_known_positives():
    group = make_group(TABLE, ALL, in_batch_negatives=True)
    everything = {1, 2, 3, 4, 5, 7, 8}
    # Documents 7 and 8 answer the same question: neither is a negative of the other's row.
    assert competing(group) == [everything, everything, everything - {8}, everything - {7}, everything]
    assert group.candidates[ALL, group.positive].all()


def test_rows_in_any_order_and_known_positives_outside_the_step():
    group = make_group(TABLE, np.array([2, 0]), in_batch_negatives=True)
    assert competing(group) == [{1, 2, 3, 5, 7}, {1, 2, 3, 5, 7}]
    assert group.passages[group.positive].tolist() == [7, 5]


def test_own_passages_and_teacher_scores_stand_in_their_columns():
    group = make_group(TABLE, np.array([4, 3, 0]), in_batch_negatives=True)
    assert [set(group.passages[row].tolist()) for row in group.own] == [{1, 2}, {8, 5, 4}, {5, 1, 2}]
    scores = [
        {passage: score for passage, score in zip(group.passages.tolist(), row.tolist(), strict=True) if score == score}
        for row in group.teacher
    ]
    assert scores == [{1: 9, 2: 2}, {8: 9, 5: 5, 4: 4}, {5: 9, 1: 1, 2: 2}], "the others are unknown (NaN)"


@st.composite
def tables(draw):
    """Rows over few passages, so that they share many; questions may have several known positives."""
    n_passages, n_rows = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    ids = st.integers(0, n_passages - 1)
    known = [draw(st.lists(ids, min_size=1, max_size=3, unique=True)) for _ in range(n_rows)]
    negatives = []
    for row in known:
        found = [item for item in draw(st.lists(ids, max_size=3, unique=True)) if item not in row]
        negatives.append(found + [MISSING] * (3 - len(found)))
    return make_table([row[0] for row in known], negatives, known)


@given(table=tables(), in_batch=st.booleans())
@settings(max_examples=100, deadline=None)
def test_groups_equal_a_slow_loop(table, in_batch):
    rows = np.arange(len(table.positive))[::-1]
    named = {row: [table.positive[row], *table.negatives[row][table.negatives[row] != MISSING]] for row in rows}
    passages = sorted({int(item) for items in named.values() for item in items})
    group = make_group(table, rows, in_batch_negatives=in_batch)
    assert group.passages.tolist() == passages
    for place, row in enumerate(rows):
        for column, passage in enumerate(passages):
            is_positive = passage == table.positive[row]
            rival = passage not in table.known[row] if in_batch else passage in named[row]
            assert group.candidates[place, column] == (is_positive or rival)
            assert group.own[place, column] == (passage in named[row])
            assert (group.positive[place] == column) == is_positive


@given(table=tables(), size=st.integers(1, 4), seed=st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_ranks_together_have_the_loss_and_gradient_of_one_process(table, size, seed):
    """Vectors by passage index stand for an encoder: the gradient at a passage is the sum over its copies."""
    random = torch.Generator().manual_seed(seed)
    rows = np.arange(len(table.positive))
    queries = torch.randn(len(rows), 4, generator=random, requires_grad=True)
    vectors = torch.randn(12, 4, generator=random, requires_grad=True)
    loss = VectorLoss(InfoNCE(0.5), dot, false_negative_margin=0.3)

    def loss_of(group: Group) -> torch.Tensor:
        tensors = [torch.as_tensor(item) for item in (group.positive, group.candidates, group.own)]
        return loss(queries[group.rows], vectors[group.passages], tensors[0], tensors[1], own=tensors[2])

    alone = loss_of(make_group(table, rows, in_batch_negatives=True))
    expected = torch.autograd.grad(alone, [queries, vectors])
    parts = [rows[rank::size] for rank in range(size) if len(rows[rank::size])]
    gathered = [make_group(table, part, in_batch_negatives=True).passages for part in parts]
    groups = [merge_ranks(table, part, gathered) for part in parts]
    for group in groups:
        for row in group.candidates:
            rivals = group.passages[row].tolist()
            assert len(set(rivals)) == len(rivals), "a passage of several ranks must count once"
    together = sum(len(group.rows) / len(rows) * loss_of(group) for group in groups)
    assert together.item() == pytest.approx(alone.item(), rel=1e-4, abs=1e-6)
    for gradient, wanted in zip(torch.autograd.grad(together, [queries, vectors]), expected, strict=True):
        assert torch.allclose(gradient, wanted, atol=1e-5)


def test_the_first_copy_of_a_positive_is_the_one_that_is_used():
    groups = [merge_ranks(TABLE, np.array([row]), [np.array([1, 2, 5]), np.array([2, 3, 5])]) for row in (0, 1)]
    assert [group.positive.tolist() for group in groups] == [[2], [2]]
    assert [group.candidates[0].tolist() for group in groups] == [[True, True, True, False, True, False]] * 2


class TestMargin:
    """Candidates of one query whose positive scores 0.8, by their scores."""

    SCORES = torch.tensor([[0.8, 0.9, 0.75, 0.3, 0.95]])
    CANDIDATES = torch.tensor([[True, True, True, True, True]])
    OWN = torch.tensor([[True, False, False, False, True]])

    def left(self, margin: float | None, positive: int = 0, own: torch.Tensor = OWN) -> list[int]:
        loss = VectorLoss(InfoNCE(0.1), dot, false_negative_margin=margin)
        kept = loss.competing(self.SCORES, torch.tensor([positive]), self.CANDIDATES, own)
        return kept[0].nonzero().flatten().tolist()

    def test_passages_close_to_the_positive_are_left_out(self):
        assert self.left(None) == [0, 1, 2, 3, 4]
        assert self.left(0.0) == [0, 2, 3, 4]
        assert self.left(0.1) == [0, 3, 4]
        assert self.left(-0.2) == [0, 1, 2, 3, 4], "a negative margin drops only what is far above the positive"

    def test_own_passages_always_stay(self):
        everything_own = torch.ones(1, 5, dtype=torch.bool)
        assert self.left(2.0) == [0, 4]
        assert self.left(2.0, own=everything_own) == [0, 1, 2, 3, 4]

    def test_nothing_that_was_masked_comes_back(self):
        loss = VectorLoss(InfoNCE(0.1), dot, false_negative_margin=0.1)
        candidates = torch.tensor([[True, False, True, False, False]])
        kept = loss.competing(self.SCORES, torch.tensor([0]), candidates, self.OWN)
        assert kept.tolist() == [[True, False, False, False, False]]

    def test_a_margin_needs_to_know_the_own_passages(self):
        loss = VectorLoss(InfoNCE(0.1), dot, false_negative_margin=0.1)
        with pytest.raises(ValueError, match="own"):
            loss(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([0]), torch.ones(1, 1, dtype=torch.bool))

    def test_the_threshold_gets_no_gradient(self):
        queries = torch.tensor([[1.0, 0.0]], requires_grad=True)
        passages = torch.tensor([[0.5, 0.0], [0.9, 0.0], [0.1, 0.3]], requires_grad=True)
        loss = VectorLoss(InfoNCE(1.0), dot, false_negative_margin=0.0)
        own = torch.tensor([[True, False, False]])
        loss(queries, passages, torch.tensor([0]), torch.ones(1, 3, dtype=torch.bool), own=own).backward()
        assert (passages.grad[1] == 0).all() and passages.grad[2, 0] > 0

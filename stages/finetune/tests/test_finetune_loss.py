"""Every loss by hand, against a slow loop, and at its edges: masks, missing teachers, rows without rivals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_finetune.losses.infonce import InfoNCE
from pipeline_finetune.losses.kl import DistillKL
from pipeline_finetune.losses.listwise import ListwiseSoftmax
from pipeline_finetune.losses.margin_mse import MarginMSE
from pipeline_finetune.losses.pointwise import PointwiseBCE
from pipeline_finetune.validation import ranking_metrics

LOSSES = [InfoNCE(0.5), ListwiseSoftmax(2.0), PointwiseBCE(0.7), MarginMSE(), DistillKL(1.5)]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)

SCORES = torch.tensor([[2.0, 1.0, -1.0], [0.5, 0.0, 3.0]])
POSITIVE = torch.tensor([0, 1])
EVERYTHING = torch.ones(2, 3, dtype=torch.bool)
TEACHER = torch.tensor([[3.0, 1.0, 0.0], [-1.0, 2.0, math.nan]])


def slow_row(loss, scores: list[float], positive: int, candidates: list[bool], teacher: list[float]) -> float:
    """One row's loss, straight from the definitions."""
    rivals = [column for column, competes in enumerate(candidates) if competes]
    known = [column for column in rivals if not math.isnan(teacher[column])]

    def log_softmax(values: list[float], columns: list[int], temperature: float) -> dict[int, float]:
        total = sum(math.exp(values[column] / temperature) for column in columns)
        return {column: values[column] / temperature - math.log(total) for column in columns}

    match loss:
        case InfoNCE() | ListwiseSoftmax():
            return -log_softmax(scores, rivals, loss.temperature)[positive]
        case PointwiseBCE():
            signed = [(1 if column == positive else -1) * scores[column] / loss.temperature for column in rivals]
            return sum(math.log1p(math.exp(-logit)) for logit in signed) / len(rivals)
        case MarginMSE():
            others = [column for column in known if column != positive] if positive in known else []
            errors = [(scores[positive] - scores[j] - teacher[positive] + teacher[j]) ** 2 for j in others]
            return sum(errors) / max(1, len(errors))
        case DistillKL():
            student = log_softmax(scores, known, loss.temperature)
            expert = log_softmax(teacher, known, loss.temperature)
            return loss.temperature**2 * sum(math.exp(expert[j]) * (expert[j] - student[j]) for j in known)
    raise AssertionError(loss)


@st.composite
def steps(draw):
    """A step of 1-4 rows over 1-6 columns, with holes in the candidates and in the teacher's scores."""
    n_rows, n_columns = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    positive = torch.randint(n_columns, (n_rows,), generator=random)
    candidates = torch.rand(n_rows, n_columns, generator=random) < draw(st.floats(0, 1))
    candidates[torch.arange(n_rows), positive] = True
    teacher = 3 * torch.randn(n_rows, n_columns, generator=random)
    teacher[torch.rand(n_rows, n_columns, generator=random) < draw(st.floats(0, 1))] = math.nan
    return 3 * torch.randn(n_rows, n_columns, generator=random), positive, candidates, teacher


@every_loss
@given(step=steps())
@settings(max_examples=60, deadline=None)
def test_loss_equals_a_slow_loop_and_its_gradient_stays_finite(loss, step):
    scores, positive, candidates, teacher = step
    scores.requires_grad_()
    value = loss(scores, positive, candidates, teacher)
    rows = zip(scores.tolist(), positive.tolist(), candidates.tolist(), teacher.tolist(), strict=True)
    expected = sum(slow_row(loss, *row) for row in rows) / len(scores)
    assert value.dtype == torch.float32 and value.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    value.backward()
    assert scores.grad.isfinite().all()
    assert scores.grad[~candidates].abs().sum() == 0, "a passage that does not compete must not be trained"


@every_loss
@given(step=steps(), cut=st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_a_step_in_two_parts_is_the_step(loss, step, cut):
    total = loss(*step)
    n_rows = len(step[0])
    parts = [[item[:cut] for item in step], [item[cut:] for item in step]]
    joined = sum(len(part[0]) / n_rows * loss(*part) for part in parts if len(part[0]))
    assert joined.item() == pytest.approx(total.item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("loss", "golden"),
    list(zip(LOSSES, [3.0691417, 1.2579992, 1.3365601, 6.375, 0.5706698], strict=True)),
    ids=lambda item: type(item).__name__,
)
def test_golden_values(loss, golden):
    assert loss(SCORES, POSITIVE, EVERYTHING, TEACHER).item() == pytest.approx(golden, abs=1e-6)


def test_infonce_by_hand():
    first = math.log(math.exp(4) + math.exp(2) + math.exp(-2)) - 4
    second = math.log(math.exp(1) + 1 + math.exp(6))
    assert InfoNCE(0.5)(SCORES, POSITIVE, EVERYTHING).item() == pytest.approx((first + second) / 2, abs=1e-6)
    own = torch.tensor([[True, False, True], [False, True, False]])
    alone = math.log(math.exp(4) + math.exp(-2)) - 4
    assert InfoNCE(0.5)(SCORES, POSITIVE, own).item() == pytest.approx(alone / 2, abs=1e-6)


def test_pointwise_is_torchs_mean_over_pairs_when_rows_are_equally_long():
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    expected = torch.nn.BCEWithLogitsLoss()(SCORES / 0.7, labels)
    assert torch.allclose(PointwiseBCE(0.7)(SCORES, POSITIVE, EVERYTHING), expected)


def test_margin_mse_by_hand():
    first = ((1 - 2) ** 2 + (3 - 3) ** 2) / 2
    second = (-0.5 - 3) ** 2  # the third passage has no teacher score
    expected = (first + second) / 2
    assert MarginMSE()(SCORES, POSITIVE, EVERYTHING, TEACHER).item() == pytest.approx(expected)


def test_kl_is_torchs_divergence_where_the_teacher_knows_everything():
    teacher = TEACHER.nan_to_num(0.5)
    log_student, expert = (SCORES / 1.5).log_softmax(1), (teacher / 1.5).softmax(1)
    expected = 1.5**2 * torch.nn.functional.kl_div(log_student, expert, reduction="batchmean")
    assert torch.allclose(DistillKL(1.5)(SCORES, POSITIVE, EVERYTHING, teacher), expected)


def test_a_student_that_agrees_with_its_teacher_loses_nothing():
    for loss in (MarginMSE(), DistillKL(0.3)):
        scores = SCORES.clone().requires_grad_()
        value = loss(scores, POSITIVE, EVERYTHING, SCORES - 7)  # an offset per query says nothing
        value.backward()
        assert value.item() == pytest.approx(0, abs=1e-6) and scores.grad.abs().max() < 1e-6


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if not isinstance(loss, PointwiseBCE)], ids=repr)
def test_a_positive_without_rivals_loses_nothing(loss):
    scores = torch.tensor([[0.3, 9.0]], requires_grad=True)
    value = loss(scores, torch.tensor([0]), torch.tensor([[True, False]]), torch.tensor([[1.0, 2.0]]))
    value.backward()
    assert value.item() == 0 and (scores.grad == 0).all()


@pytest.mark.parametrize("loss", [MarginMSE(), DistillKL(1.0)], ids=["MarginMSE", "DistillKL"])
def test_rows_that_the_teacher_does_not_know_give_zero_with_a_gradient(loss):
    scores = SCORES.clone().requires_grad_()
    value = loss(scores, POSITIVE, EVERYTHING, torch.full_like(SCORES, math.nan))
    value.backward()
    assert value.item() == 0 and (scores.grad == 0).all()
    with pytest.raises(ValueError, match="teacher"):
        loss(scores, POSITIVE, EVERYTHING)


@every_loss
def test_only_losses_that_need_a_teacher_look_at_it(loss):
    values = {loss(SCORES, POSITIVE, EVERYTHING, teacher).item() for teacher in (TEACHER, TEACHER * 2)}
    assert len(values) == (2 if loss.needs_teacher else 1)


@pytest.mark.parametrize("make", [InfoNCE, ListwiseSoftmax])
def test_a_low_temperature_looks_at_the_hardest_candidate_alone(make):
    def shares(temperature: float) -> torch.Tensor:
        scores = torch.tensor([[0.2, 0.9, 0.1]], requires_grad=True)
        make(temperature)(scores, torch.tensor([0]), torch.ones(1, 3, dtype=torch.bool)).backward()
        return scores.grad[0, 1:] / scores.grad[0, 1:].sum()

    assert shares(0.02)[0] > 0.999
    assert shares(100)[0] == pytest.approx(0.5, abs=0.01)


@every_loss
@pytest.mark.parametrize("score", [-math.inf, math.nan, 1e30])
def test_what_does_not_compete_cannot_spoil_the_rest(loss, score):
    candidates = torch.tensor([[True, True, False], [True, True, True]])
    scores = SCORES.clone()
    expected = loss(scores, POSITIVE, candidates, TEACHER)
    scores[0, 2] = score
    scores.requires_grad_()
    value = loss(scores, POSITIVE, candidates, TEACHER)
    value.backward()
    assert value == expected
    assert scores.grad.isfinite().all() and scores.grad[0, 2] == 0 and scores.grad[0, 1] != 0


@every_loss
def test_large_scores_stay_finite(loss):
    scores = torch.tensor([[-1e4, 1e4], [1e4, -1e4]], requires_grad=True)
    value = loss(scores, torch.tensor([0, 0]), torch.ones(2, 2, dtype=torch.bool), torch.tensor([[1e3, -1e3]] * 2))
    value.backward()
    assert value.isfinite() and scores.grad.isfinite().all()


def test_ranking_metrics_by_hand():
    scores = torch.tensor([[0.9, 0.1, -torch.inf], [0.5, 0.5, 0.2], [0.1, 0.3, 0.2]])
    values = ranking_metrics(scores, temperature=0.5)
    assert values["val_acc1"] == pytest.approx(1 / 3)
    assert values["val_mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    expected = np.mean(
        [-math.log(math.exp(row[0] / 0.5) / sum(math.exp(s / 0.5) for s in row)) for row in scores.tolist()]
    )
    assert values["val_loss"] == pytest.approx(expected, abs=1e-6)

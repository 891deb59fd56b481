"""Health of scores against values worked out by hand; the guard stops a reranker that has collapsed, and no other."""

from __future__ import annotations

import math

import pytest
import torch
from pipeline_finetune.health import HEALTH, CollapseGuard, score_health

from pipeline.errors import PipelineError


def health_of(scores, positive, candidates) -> dict[str, float]:
    values = score_health(torch.tensor(scores), torch.tensor(positive), torch.tensor(candidates))
    return dict(zip(HEALTH, values.tolist(), strict=True))


def test_health_by_hand():
    seen = health_of([[0.9, 0.5, 0.1], [0.3, 0.2, 0.8]], [0, 1], [[True, True, False], [True, True, True]])
    assert seen["positive_score"] == pytest.approx((0.9 + 0.2) / 2)
    assert seen["hardest_negative_score"] == pytest.approx((0.5 + 0.8) / 2)
    assert seen["accuracy"] == 0.5
    second = math.sqrt(sum((x - 1.3 / 3) ** 2 for x in (0.3, 0.2, 0.8)) / 3)
    assert seen["score_spread"] == pytest.approx((0.2 + second) / 2)


def test_a_tie_is_no_success():
    assert health_of([[0.5, 0.5]], [0], [[True, True]])["accuracy"] == 0.0


def test_rows_without_a_negative_say_nothing_about_rivals():
    alone = health_of([[0.5, 0.1]], [0], [[True, False]])
    assert alone["positive_score"] == 0.5 and math.isnan(alone["score_spread"])
    mixed = health_of([[0.5, 0.1], [0.7, 0.2]], [0, 0], [[True, False], [True, True]])
    assert mixed["hardest_negative_score"] == pytest.approx(0.2) and mixed["accuracy"] == 1.0


def watch(guard: CollapseGuard, spreads, positive=0.0) -> None:
    for step, spread in enumerate(spreads, 1):
        guard.watch(step, {"positive_score": positive, "score_spread": spread})


def test_equal_scores_for_long_end_the_run_with_advice():
    with pytest.raises(PipelineError, match=r"equal for 20 steps \(step 20") as caught:
        watch(CollapseGuard(stops=True), [1e-7] * 25)
    assert "learning_rate" in caught.value.fix


def test_a_guard_that_does_not_stop_warns_once(monkeypatch):
    told = []
    monkeypatch.setattr("pipeline_finetune.health.log.warning", lambda text, *values: told.append(text % values))
    watch(CollapseGuard(stops=False), [1e-7] * 60)
    assert len(told) == 1 and "the model has collapsed" in told[0]


def test_equality_is_relative_to_the_size_of_the_scores():
    with pytest.raises(PipelineError):
        watch(CollapseGuard(stops=True), [1e-3] * 20, positive=500.0)
    watch(CollapseGuard(stops=True), [1e-3] * 40, positive=1.0)


def test_a_single_healthy_step_starts_the_count_anew():
    watch(CollapseGuard(stops=True), ([1e-7] * 19 + [0.1]) * 3)
    watch(CollapseGuard(stops=True), [float("nan")] * 40)  # rows without negatives say nothing

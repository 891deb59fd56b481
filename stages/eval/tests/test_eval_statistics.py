"""Intervals, p-values and verdicts on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pipeline_eval.judge import compare_systems, headline_metrics
from pipeline_eval.report import p_text
from pipeline_eval.statistics import compare, minimum_detectable_effect


def column(values) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def test_equal_systems_are_indistinguishable():
    scores = column(np.random.default_rng(0).random(80))
    (found,) = compare(scores, scores.copy())
    assert (found.delta, found.ci95, found.p, found.verdict) == (0, (0, 0), 1, "indistinguishable")


def test_a_clear_shift_is_better():
    random = np.random.default_rng(1)
    a = random.random(100)
    (found,) = compare(column(a), column(a + 0.1 + random.normal(0, 0.05, 100)))
    assert found.verdict == "better" and found.p < 0.001
    assert found.ci95[0] < 0.1 < found.ci95[1]


def test_noise_is_not_a_difference():
    random = np.random.default_rng(2)
    a = random.random(60)
    (found,) = compare(column(a), column(a + random.normal(0, 0.2, 60)))
    assert found.verdict == "indistinguishable" and found.p > 0.05


def test_rounding_noise_is_a_tie():
    a = column(np.full(60, 0.3))
    (found,) = compare(a, a + 1e-16)
    assert found.p == 1 and found.verdict == "indistinguishable"


def test_one_question_proves_nothing():
    (found,) = compare(column([0.0]), column([1.0]))
    assert found.p == pytest.approx(1, abs=0.01) and found.verdict == "indistinguishable"


def test_p_is_the_exact_share_of_sign_assignments():
    """Five differences of one size and sign: 2 of 32 sign assignments are as far from 0."""
    (found,) = compare(column(np.zeros(5)), column(np.ones(5)), samples=50_000)
    assert found.p == pytest.approx(2 / 32, abs=0.005)


def test_the_interval_is_the_normal_one_for_many_questions():
    random = np.random.default_rng(3)
    difference = random.normal(0.02, 0.3, 4000)
    (found,) = compare(column(np.zeros(4000)), column(difference), samples=4000)
    half = 1.96 * difference.std() / np.sqrt(4000)
    assert found.ci95 == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.0015)


def test_same_seed_same_numbers():
    random = np.random.default_rng(4)
    a, b = column(random.random(50)), column(random.random(50))
    assert compare(a, b, seed=7) == compare(a, b, seed=7)
    assert compare(a, b, seed=7) != compare(a, b, seed=8)


def test_each_metric_is_judged_by_itself():
    random = np.random.default_rng(5)
    a = random.random((70, 2))
    same, up = compare(a, np.stack([a[:, 0], a[:, 1] + 0.2], axis=1))
    assert (same.verdict, up.verdict) == ("indistinguishable", "better")


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (12, 2, 2), elements=st.floats(0, 1, width=32)))
def test_swapping_the_systems_mirrors_the_result(scores):
    a, b = scores[:, :, 0], scores[:, :, 1]
    for one, other in zip(compare(a, b, samples=400), compare(b, a, samples=400), strict=True):
        assert one.delta == -other.delta
        assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]), abs=1e-9)
        assert one.p == other.p
        mirrored = {"better": "worse", "worse": "better"}.get(other.verdict, other.verdict)
        assert one.verdict == mirrored


def test_unlike_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        compare(np.zeros((3, 1)), np.zeros((4, 1)))


def test_the_detectable_effect_is_found_four_times_out_of_five():
    """300 test sets of 80 questions whose true difference is the detectable one: 80 % of them give p < 0.05."""
    spread = 0.2
    detectable = 2.8016 * spread / np.sqrt(80)  # the z-values of 97.5 % and 80 %: 1.9600 + 0.8416
    differences = np.random.default_rng(6).normal(detectable, spread, (80, 300))
    found = compare(np.zeros_like(differences), differences, samples=800)
    assert np.mean([item.p < 0.05 for item in found]) == pytest.approx(0.8, abs=0.06)
    assert np.mean([item.detectable for item in found]) == pytest.approx(detectable, rel=0.02)


def test_four_times_the_questions_halve_the_detectable_effect():
    differences = np.random.default_rng(7).normal(0.5, 0.3, 400)
    more = minimum_detectable_effect(np.tile(differences, 4))
    assert more == pytest.approx(minimum_detectable_effect(differences) / 2, rel=0.01)
    assert minimum_detectable_effect(differences + 10) == pytest.approx(minimum_detectable_effect(differences))


@pytest.mark.parametrize("differences", [[0.5], [0.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
def test_without_spread_there_is_no_detectable_effect(differences):
    assert minimum_detectable_effect(np.array(differences)) is None


@pytest.mark.parametrize(("k_values", "k"), [([1, 5, 10, 100], 10), ([1, 5], 5), ([8, 12], 12), ([1, 60], 1)])
def test_headline_takes_the_nearest_cut_off(k_values, k):
    assert headline_metrics(k_values) == [f"NDCG@{k}", f"Recall@{k}"]


def test_comparisons_have_the_documented_keys():
    names = {"NDCG": ["NDCG@10"], "Recall": ["Recall@10"]}
    metrics = {group: dict.fromkeys(items, 0.0) for group, items in names.items()}
    scores = {
        system: {f"q{i}": {"NDCG@10": value, "Recall@10": value} for i in range(60)}
        for system, value in (("base", 0.2), ("finetuned", 0.6), ("bm25", 0.9))
    }
    pairs = [("base", "finetuned"), ("bm25", "finetuned"), ("finetuned", "nim")]  # the last one is not there
    found = compare_systems("demo_test", scores, pairs, metrics, 500, 42)
    assert {(item["a"], item["b"], item["metric"]) for item in found} == {
        (a, "finetuned", metric) for a in ("base", "bm25") for metric in ("NDCG@10", "Recall@10")
    }
    first = next(item for item in found if item["a"] == "base")
    assert set(first) >= {"test_set", "metric", "a", "b", "delta", "ci95", "p", "verdict", "detectable", "queries"}
    assert (first["test_set"], first["delta"], first["verdict"], first["queries"]) == ("demo_test", 0.4, "better", 60)
    assert {item["verdict"] for item in found if item["a"] == "bm25"} == {"worse"}


def test_small_p_is_not_shown_as_zero():
    assert p_text(0.0001) == "< 0.001" and p_text(0.0214) == "0.021"

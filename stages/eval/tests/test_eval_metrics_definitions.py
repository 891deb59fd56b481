"""The metric core against the definitions, written down once more, and against pytrec_eval asked for one measure.

The definitions: Jarvelin & Kekalainen, "Cumulated gain-based evaluation of IR techniques" (TOIS 2002) with the grade
as the gain; the rest as in Manning, Raghavan & Schuetze, Introduction to Information Retrieval, chapter 8.
"""

from __future__ import annotations

from math import log2, nan

import numpy as np
import pytest
import pytrec_eval
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pipeline_eval.metrics import best_first, in_returned_order, score_queries

from pipeline.errors import PipelineError

KS = [1, 3, 10, 60, 100]
PASSAGES = [f"d{i}" for i in range(14)]  # "d9" comes after "d10": ids are compared as text
SCORES = st.sampled_from([-1.5, 0.0, 0.25, 0.25 + 1e-10, 0.5, 7.0])  # few, so that there are ties; two differ in fp64


def graded(lowest: int):
    return st.dictionaries(st.sampled_from(PASSAGES), st.integers(lowest, 3), min_size=1, max_size=8)


def cases(lowest: int):
    """Judgements of three questions and a run for two of them (and one question that nobody judged)."""
    return st.tuples(
        st.fixed_dictionaries({query: graded(lowest) for query in ("q1", "q2", "q3")}),
        st.fixed_dictionaries({query: runs() for query in ("q1", "q2", "other")}),
    )


def runs():
    return st.dictionaries(st.sampled_from(PASSAGES), SCORES, max_size=len(PASSAGES))


def by_definition(judged: dict[str, int], ranking: list[str], k: int) -> dict[str, float]:
    """Metrics of one ranking at one cut-off."""
    grades = [max(judged.get(passage, 0), 0) for passage in ranking[:k]]
    places = [place for place, grade in enumerate(grades, 1) if grade]
    relevant = sum(grade > 0 for grade in judged.values())
    best = sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:k]
    return {
        f"NDCG@{k}": _share(_gain(grades), _gain(best)),
        f"MAP@{k}": _share(sum(found / place for found, place in enumerate(places, 1)), relevant),
        f"Recall@{k}": _share(len(places), relevant),
        f"P@{k}": len(places) / k,
        f"MRR@{k}": 1 / places[0] if places else 0.0,
    }


def _gain(grades: list[int]) -> float:
    return sum(grade / log2(place + 1) for place, grade in enumerate(grades, 1))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def trec_order(ranking: dict[str, float]) -> list[str]:
    """Scores as 32-bit numbers, highest first; equal ones by id, last id first."""
    return sorted(ranking, key=lambda item: (np.float32(ranking[item]), item), reverse=True)


@settings(max_examples=120, deadline=None)
@given(cases(lowest=-3))
@example(({"q1": {"d1": 1}, "q2": {"d1": -2}, "q3": {"d1": 0}}, {"q1": {}, "q2": {"d1": 1.0}, "other": {}}))
def test_equal_to_the_definitions_with_trec_evals_rule_for_ties(case):
    qrels, run = case
    found = score_queries(qrels, run, KS)
    assert set(found) == set(qrels)
    for query, judged in qrels.items():
        for k in KS:
            expected = by_definition(judged, trec_order(run.get(query, {})), k)
            assert {name: found[query][name] for name in expected} == pytest.approx(expected, abs=1e-9)


@settings(max_examples=120, deadline=None)
@given(cases(lowest=-3))
def test_equal_to_the_definitions_in_the_systems_own_order(case):
    qrels, run = case
    found = score_queries(qrels, in_returned_order(run), KS)
    for query, judged in qrels.items():
        returned = run.get(query, {})
        order = [
            item
            for score in sorted(set(returned.values()), reverse=True)
            for item in returned
            if returned[item] == score
        ]
        for k in KS:
            expected = by_definition(judged, order, k)
            assert {name: found[query][name] for name in expected} == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(cases(lowest=0))  # pytrec_eval itself may crash on grades below 0
def test_equal_to_pytrec_eval_asked_for_one_measure_at_a_time(case):
    qrels, run = case
    found = score_queries(qrels, run, KS)
    for ours, theirs in (("NDCG", "ndcg_cut"), ("MAP", "map_cut"), ("Recall", "recall"), ("P", "P")):
        for k in KS:
            alone = pytrec_eval.RelevanceEvaluator(qrels, {f"{theirs}.{k}"}).evaluate(run)
            for query in qrels:
                expected = alone.get(query, {}).get(f"{theirs}_{k}", 0.0)
                assert found[query][f"{ours}@{k}"] == pytest.approx(expected, abs=1e-9)
    reciprocal = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(run)
    for query in qrels:  # no run is longer than the last cut-off
        assert found[query]["MRR@100"] == pytest.approx(reciprocal.get(query, {}).get("recip_rank", 0.0), abs=1e-9)


def test_a_tie_counts_in_the_order_in_which_the_system_returned_it():
    qrels = {"q": {"a": 1}}
    first, last = {"q": {"a": 0.5, "b": 0.5}}, {"q": {"b": 0.5, "a": 0.5}}
    assert [score_queries(qrels, run, [1])["q"]["P@1"] for run in (first, last)] == [0, 0]  # trec_eval: b before a
    assert [score_queries(qrels, in_returned_order(run), [1])["q"]["P@1"] for run in (first, last)] == [1, 0]


def test_scores_that_differ_in_64_bits_are_no_tie():
    run = {"q": {"b": 1.0, "a": 1.0 + 1e-10}}
    assert best_first(run["q"])[0][0] == "a"
    assert score_queries({"q": {"a": 1}}, in_returned_order(run), [1])["q"]["P@1"] == 1


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(PipelineError, match=r"'b' has the score NaN \(1 of 2"):
        in_returned_order({"q": {"a": 1.0, "b": nan}})

"""Our numbers are BEIR's numbers, and a question without an answer counts."""

from __future__ import annotations

import copy
import random

import pytest
from beir.retrieval.custom_metrics import mrr
from beir.retrieval.evaluation import EvaluateRetrieval
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_eval.metrics import mean_metrics, score_queries

KS = [1, 3, 10, 100]


def random_case(seed: int, queries: int = 40, passages: int = 150):
    """Graded judgements and a full random ranking (every question answered, no equal scores)."""
    source = random.Random(seed)
    ids = [f"d{i}" for i in range(passages)]
    qrels = {
        f"q{i}": {d: source.randint(1, 3) for d in source.sample(ids, source.randint(1, 6))} for i in range(queries)
    }
    run = {query: {d: source.random() for d in source.sample(ids, 120)} for query in qrels}
    return qrels, run


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_beir(seed):
    qrels, run = random_case(seed)
    ours = mean_metrics(score_queries(qrels, run, KS))
    ndcg, average, recall, precision = EvaluateRetrieval.evaluate(qrels, copy.deepcopy(run), KS)
    for group, theirs in (("NDCG", ndcg), ("MAP", average), ("Recall", recall), ("Precision", precision)):
        assert ours[group] == pytest.approx(theirs, abs=1e-9)
    assert ours["MRR"] == pytest.approx(mrr(qrels, run, KS), abs=1e-9)


def test_layout_is_beirs():
    qrels, run = random_case(0)
    metrics = mean_metrics(score_queries(qrels, run, [1, 10]))
    assert list(metrics) == ["NDCG", "MAP", "Recall", "Precision", "MRR"]
    assert list(metrics["Precision"]) == ["P@1", "P@10"]
    assert list(metrics["NDCG"]) == ["NDCG@1", "NDCG@10"]


def test_an_unanswered_question_counts_zero():
    qrels = {"a": {"x": 1}, "b": {"y": 1}, "c": {"z": 1}}
    scores = score_queries(qrels, {"a": {"x": 1.0}, "b": {}}, [1])
    assert set(scores) == {"a", "b", "c"}
    assert mean_metrics(scores)["NDCG"]["NDCG@1"] == round(1 / 3, 5)


def test_a_passage_with_the_questions_id_is_an_answer():
    assert score_queries({"7": {"7": 1}}, {"7": {"7": 2.0, "8": 1.0}}, [1])["7"]["Recall@1"] == 1.0


def test_known_values():
    scores = score_queries({"q": {"good": 1}}, {"q": {"bad": 3.0, "good": 2.0, "other": 1.0}}, [1, 2])["q"]
    assert scores["MRR@1"] == 0 and scores["MRR@2"] == 0.5
    assert scores["Recall@1"] == 0 and scores["Recall@2"] == 1
    assert scores["P@2"] == 0.5
    assert scores["NDCG@2"] == pytest.approx(0.63093, abs=1e-5)  # 1 / log2(3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_recall_never_falls_with_k_and_all_lie_between_0_and_1(seed):
    qrels, run = random_case(seed, queries=3, passages=130)
    for values in score_queries(qrels, run, KS).values():
        recalls = [values[f"Recall@{k}"] for k in KS]
        assert recalls == sorted(recalls)
        assert all(0 <= value <= 1 for value in values.values())

"""The one place where retrieval metrics are computed: trec_eval's own code through pytrec_eval, under BEIR's names."""

from __future__ import annotations

from collections.abc import Sequence

import pytrec_eval

from pipeline.records.beir import Qrels
from pipeline.records.results import Metrics, QueryScores

Run = dict[str, dict[str, float]]
"""Question id -> {passage id: score}."""

VERSION = 1
"""Part of every fingerprint; raised when the numbers of the same run would change."""

_TREC_NAMES = {"NDCG": "ndcg_cut", "MAP": "map_cut", "Recall": "recall", "P": "P"}
_GROUPS = {"NDCG": "NDCG", "MAP": "MAP", "Recall": "Recall", "P": "Precision", "MRR": "MRR"}


def score_queries(qrels: Qrels, run: Run, k_values: Sequence[int]) -> QueryScores:
    """NDCG, MAP, Recall, P and MRR at each cut-off, for every judged question.

    A question the run does not answer scores 0 instead of vanishing from the mean. A passage that has the question's
    own id counts like any other (BEIR drops it, which is meant for question-to-question sets).

    Args:
        qrels: judgements; a passage is relevant if its grade is above 0.
        run: at least max(k_values) passages a question, where there are that many.
    """
    measures = {f"{name}.{','.join(str(k) for k in k_values)}" for name in _TREC_NAMES.values()} | {"recip_rank"}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, measures)
    found = evaluator.evaluate({query: ranking for query, ranking in run.items() if ranking and query in qrels})
    return {query: _named(found.get(query, {}), k_values) for query in qrels}


def mean_metrics(scores: QueryScores) -> Metrics:
    """Means over all questions in BEIR's layout, rounded to 5 digits as BEIR does."""
    means: Metrics = {group: {} for group in _GROUPS.values()}
    for name in next(iter(scores.values())):
        total = sum(values[name] for values in scores.values())
        means[_GROUPS[name.split("@")[0]]][name] = round(total / len(scores), 5)
    return means


def _named(found: dict[str, float], k_values: Sequence[int]) -> dict[str, float]:
    named = {f"{name}@{k}": found.get(f"{trec}_{k}", 0.0) for name, trec in _TREC_NAMES.items() for k in k_values}
    reciprocal = found.get("recip_rank", 0.0)  # 1 / rank of the first relevant passage
    return named | {f"MRR@{k}": reciprocal if reciprocal * k > 1 - 1e-9 else 0.0 for k in k_values}

"""The one place where retrieval metrics are computed: trec_eval's own code through pytrec_eval, under BEIR's names."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytrec_eval

from pipeline.errors import PipelineError
from pipeline.records.beir import Qrels
from pipeline.records.results import Metrics, QueryScores

Run = dict[str, dict[str, float]]
"""Question id -> {passage id: score}, best first: among equal scores the earlier one counts as the better one."""

VERSION = 2
"""Part of every fingerprint; raised when the numbers of the same run would change."""

_TREC_NAMES = {"NDCG": "ndcg_cut", "MAP": "map_cut", "Recall": "recall", "P": "P"}
_GROUPS = {"NDCG": "NDCG", "MAP": "MAP", "Recall": "Recall", "P": "Precision", "MRR": "MRR"}


def score_queries(qrels: Qrels, run: Run, k_values: Sequence[int]) -> QueryScores:
    """NDCG, MAP, Recall, P and MRR at each cut-off, for every judged question, as trec_eval defines them.

    A question the run does not answer scores 0 instead of vanishing from the mean. A passage that has the question's
    own id counts like any other (BEIR drops it, which is meant for question-to-question sets). trec_eval knows a
    ranking by its scores alone, as 32-bit numbers, and orders equal ones by passage id, last id first: a system's own
    order is measured only after `in_returned_order`.

    Args:
        qrels: judgements; a passage is relevant if its grade is above 0, and its grade is its gain in NDCG.
        run: at least max(k_values) passages a question, where there are that many.
    """
    measures = {f"{name}.{','.join(str(k) for k in k_values)}" for name in _TREC_NAMES.values()} | {"recip_rank"}
    evaluator = pytrec_eval.RelevanceEvaluator(_without_negatives(qrels), measures)
    found = evaluator.evaluate({query: ranking for query, ranking in run.items() if ranking and query in qrels})
    return {query: _named(found.get(query, {}), k_values) for query in qrels}


def in_returned_order(run: Run) -> Run:
    """The same rankings with the scores -1, -2, -3, …: no ties are left that trec_eval would break by passage id."""
    return {query: {item: -float(i) for i, (item, _) in enumerate(best_first(run[query]), 1)} for query in run}


def best_first(ranking: dict[str, float]) -> list[tuple[str, float]]:
    """Passages and their scores, the highest first; equal scores stay in the order in which the system gave them.

    Raises:
        PipelineError: a score is not a number.
    """
    if unknown := [item for item, score in ranking.items() if math.isnan(score)]:
        raise PipelineError(
            f"passage {unknown[0]!r} has the score NaN ({len(unknown)} of {len(ranking)} in this ranking)",
            fix="the model's training failed, or its weights are damaged: make the model again",
        )
    return sorted(ranking.items(), key=lambda item: -item[1])


def mean_metrics(scores: QueryScores) -> Metrics:
    """Means over all questions in BEIR's layout, rounded to 5 digits as BEIR does."""
    means: Metrics = {group: {} for group in _GROUPS.values()}
    for name in next(iter(scores.values())):
        total = sum(values[name] for values in scores.values())
        means[_GROUPS[name.split("@")[0]]][name] = round(total / len(scores), 5)
    return means


def _without_negatives(qrels: Qrels) -> Qrels:
    """Grades below 0 become 0, which counts the same; pytrec_eval 0.5.11 writes outside its memory for them."""
    return {query: {item: max(grade, 0) for item, grade in judged.items()} for query, judged in qrels.items()}


def _named(found: dict[str, float], k_values: Sequence[int]) -> dict[str, float]:
    named = {f"{name}@{k}": found.get(f"{trec}_{k}", 0.0) for name, trec in _TREC_NAMES.items() for k in k_values}
    reciprocal = found.get("recip_rank", 0.0)  # 1 / rank of the first relevant passage
    return named | {f"MRR@{k}": reciprocal if reciprocal * k > 1 - 1e-9 else 0.0 for k in k_values}

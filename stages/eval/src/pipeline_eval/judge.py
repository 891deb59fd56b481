"""From per-question scores to the list of comparisons that the results carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.records.results import Metrics, QueryScores, metric_names
from pipeline_eval.statistics import compare

GROUPS = ("NDCG", "Recall")
HEADLINE_K = 10


def headline_metrics(k_values: Sequence[int]) -> list[str]:
    """NDCG@10 and Recall@10, or the nearest cut-off there is (the larger of two)."""
    k = min(k_values, key=lambda value: (abs(value - HEADLINE_K), -value))
    return [f"{group}@{k}" for group in GROUPS]


def compare_systems(
    test_set: str,
    scores: dict[str, QueryScores],
    pairs: Sequence[tuple[str, str]],
    metrics: Metrics,
    samples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Every pair on one test set, for NDCG and Recall at each cut-off.

    Args:
        scores: system -> per-question scores.
        pairs: systems (a, b); pairs that are not both there are left out.
        metrics: any system's metrics; names the cut-offs.
    """
    names = metric_names(metrics, GROUPS)
    found: list[dict[str, Any]] = []
    for a, b in pairs:
        if a not in scores or b not in scores:
            continue
        queries = sorted(scores[a])
        results = compare(_table(scores[a], queries, names), _table(scores[b], queries, names), samples, seed)
        found += [
            {
                "test_set": test_set,
                "metric": name,
                "a": a,
                "b": b,
                "delta": round(result.delta, 6),
                "ci95": [round(bound, 6) for bound in result.ci95],
                "p": round(result.p, 6),
                "verdict": result.verdict,
                "detectable": None if result.detectable is None else round(result.detectable, 6),
                "queries": len(queries),
            }
            for name, result in zip(names, results, strict=True)
        ]
    return found


def pick(comparisons: list[dict[str, Any]], test_set: str, a: str, b: str, metric: str) -> dict[str, Any] | None:
    """The one comparison with these names, or None."""
    wanted = (test_set, a, b, metric)
    return next((item for item in comparisons if tuple(item[name] for name in _NAMES) == wanted), None)


_NAMES = ("test_set", "a", "b", "metric")


def _table(scores: QueryScores, queries: list[str], names: list[str]) -> np.ndarray:
    """Scores [questions, metrics]."""
    return np.array([[scores[query][name] for name in names] for query in queries], dtype=np.float64)

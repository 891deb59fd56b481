"""Does the served model give the numbers of its checkpoint? A check of behaviour, no proof that they are the same."""

from __future__ import annotations

from typing import Any

from pipeline.records.results import Metrics

LOW_K = 5
"""Below this cut-off one question more or less moves the mean far, so the tolerance is wider."""
GROUPS = ("NDCG", "Recall")

Deltas = dict[str, dict[str, dict[str, Any]]]


def metric_deltas(checkpoint: Metrics, nim: Metrics, tolerance: float, low_k_tolerance: float) -> Deltas:
    """{"NDCG": {"NDCG@10": {"checkpoint", "nim", "delta", "tolerance", "within_tolerance"}}, "Recall": …}.

    `delta` is nim - checkpoint; `tolerance` is `low_k_tolerance` for cut-offs below 5.
    """
    return {
        group: {
            name: _delta(value, nim[group][name], low_k_tolerance if int(name.split("@")[1]) < LOW_K else tolerance)
            for name, value in checkpoint[group].items()
        }
        for group in GROUPS
    }


def _delta(checkpoint: float, nim: float, tolerance: float) -> dict[str, Any]:
    delta = round(nim - checkpoint, 5)  # as many digits as the metrics have, so that 0.03 is not above 0.03
    return {
        "checkpoint": checkpoint,
        "nim": nim,
        "delta": delta,
        "tolerance": tolerance,
        "within_tolerance": abs(delta) <= tolerance,
    }


def drifted(deltas: Deltas) -> list[str]:
    """Names of the metrics outside their tolerance."""
    return [name for group in deltas.values() for name, item in group.items() if not item["within_tolerance"]]

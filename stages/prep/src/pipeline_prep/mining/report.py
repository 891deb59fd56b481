"""`mining_report.json`: what was mined, how close it is, and what each rule removed."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline_prep.funnel import Funnel
from pipeline_prep.mining.mine import MiningReport

_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def percentiles(scores: np.ndarray) -> dict[str, float]:
    """{"p0": lowest, …, "p50": median, …, "p100": highest}; empty without scores."""
    if not len(scores):
        return {}
    found = np.percentile(scores, _PERCENTILES)
    return {f"p{share}": round(float(value), 4) for share, value in zip(_PERCENTILES, found, strict=True)}


def mining_section(mined: MiningReport) -> dict[str, Any]:
    return {
        "rows": mined.rows,
        "negatives": mined.negatives,
        "rows_short_of_negatives": mined.short,
        "rows_without_negatives": mined.none,
        "left_out": {
            "above_ceiling": mined.above_ceiling,
            "known_positives": mined.known_positives,
            "passages_kept_for_test": mined.kept_for_test,
        },
        "positive_similarity": percentiles(mined.positive_scores),
        "negative_similarity": percentiles(mined.negative_scores),
    }


def full_report(args: dict[str, Any], funnel: Funnel, train: MiningReport, val: MiningReport) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "args": args,
        "funnel": funnel.to_json(),
        "train": mining_section(train),
        "val": mining_section(val),
    }

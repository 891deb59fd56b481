"""Keep a question only if the base model can find what it was written from."""

from __future__ import annotations

import numpy as np

from pipeline.records.sources.ragged import Ragged
from pipeline.retrieval.passages import Passages
from pipeline.retrieval.search import Limits
from pipeline_prep.mining.pool import Compute


def found_again(queries: np.ndarray, passages: Passages, known: Ragged, k: int, compute: Compute) -> np.ndarray:
    """bool [len(queries)]: does one of the `known` passages stand among the `k` nearest of the whole corpus?

    A vague or wrong question finds other passages first. Only train and val questions may come here: a test set
    filtered by the base model would hand it a perfect recall.
    """
    near = compute.nearest(queries, passages, k, Limits()).indices
    row, passage = known.row_numbers, known.values
    hits = (near[row] == passage[:, None]).any(1)
    return np.bincount(row[hits], minlength=len(queries)) > 0

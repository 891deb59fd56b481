"""Keep a question only if the base model can find what it was written from."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.records.training import TrainingRow
from pipeline.retrieval.search import top_k
from pipeline_prep.vectors import Vectors


def found_again(
    rows: list[TrainingRow], vectors: Vectors, k: int, query_block: int, device: torch.device | str = "cpu"
) -> np.ndarray:
    """bool [len(rows)]: does one of the row's positives stand among the `k` nearest passages of the whole corpus?

    A vague or wrong question finds other passages first. Only train and val questions may come here: a test set
    filtered by the base model would hand it a perfect recall.
    """
    _, nearest = top_k(vectors.of(rows), vectors.passages, k, query_block=query_block, device=device)
    row, passage = vectors.pairs(rows, known=True)
    hits = (nearest[row] == passage[:, None]).any(1)
    return np.bincount(row[hits], minlength=len(rows)) > 0

"""Candidates that share words with a question, where the vectors find those that share its meaning."""

from __future__ import annotations

import numpy as np

from pipeline.retrieval.bm25 import Bm25Index
from pipeline.run.progress import progress
from pipeline_prep.mining.rules import full_text
from pipeline_prep.mining.task import MiningTask


def bm25_candidates(task: MiningTask, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` best passages of each question by BM25: (row, passage), int64 [P] each, row after row, best first.

    Known and hidden passages are left out before the best are taken, so that they take nobody's place. A passage
    without a shared word is no candidate. Questions are scored one by one: one fp32 score per passage in memory.
    """
    index = Bm25Index(full_text(task, passage) for passage in range(task.corpus.num_rows))
    counts, passages = np.zeros(len(task), np.int64), [np.empty(0, np.int64)]
    with progress("BM25", len(task), "questions") as bar:
        for row, question in enumerate(task.questions):
            found, _ = index.top(question, k, np.concatenate([task.known[row], task.hidden]))
            counts[row] = len(found)
            passages.append(found)
            bar.advance()
    return np.repeat(np.arange(len(task)), counts), np.concatenate(passages)

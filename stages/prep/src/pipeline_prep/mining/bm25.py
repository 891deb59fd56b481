"""Candidates that share words with a question, where the vectors find those that share its meaning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.retrieval.bm25 import Bm25Index
from pipeline_prep.mining.rules import full_text
from pipeline_prep.mining.task import MiningTask


class Bm25Candidates:
    """An index of the task's corpus."""

    def __init__(self, task: MiningTask) -> None:
        self.task = task
        self._index = Bm25Index(full_text(task, passage) for passage in range(task.corpus.num_rows))

    def of(self, rows: Sequence[int], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The `k` best passages of these rows' questions: (row, passage), int64 [P], row after row, best first.

        Known and hidden passages are left out before the best are taken, so that they take nobody's place. A passage
        without a shared word is no candidate. Questions are scored one by one: one fp32 score per passage in memory.
        """
        task = self.task
        counts, passages = np.zeros(len(rows), np.int64), [np.empty(0, np.int64)]
        for place, row in enumerate(rows):
            found, _ = self._index.top(task.questions[row], k, np.concatenate([task.known[row], task.hidden]))
            counts[place] = len(found)
            passages.append(found)
        return np.repeat(np.asarray(rows, np.int64), counts), np.concatenate(passages)

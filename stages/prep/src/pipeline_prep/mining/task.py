"""What mining is asked for, and what it gives back. Rows and passages are numbers; texts stay in arrow buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.records.sources.ragged import Ragged

if TYPE_CHECKING:
    import pyarrow as pa

SOURCES = ("vectors", "bm25", "random", "file")
"""Where a negative came from; `Mined.sources` holds places in this list."""


_TEXTS = ("question_ids", "questions", "answers")
_PASSAGES = ("positives", "known", "given")


@dataclass(frozen=True)
class MiningTask:
    """Questions over one corpus.

    Attributes:
        question_ids, questions: one of each for every row.
        answers: every wording of the row's answer that is known; may be empty.
        corpus: arrow table with the columns id, text and title (large strings); passage `i` is its row `i`.
        positives: passages each row is trained on; never empty.
        known: every passage known to answer the question, the positives too; ascending.
        given: negatives that the input brought along; they stand first in the result.
        hidden: int64, ascending: passages that may be nobody's negative (they answer test questions).
        apart: int64, ascending: passages that may not become positives of these rows (they stand in documents of
            another split).
    """

    question_ids: Sequence[str]
    questions: Sequence[str]
    answers: Sequence[Sequence[str]]
    corpus: pa.Table
    positives: Ragged
    known: Ragged
    given: Ragged
    hidden: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    apart: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.questions)

    def rows(self, places: np.ndarray) -> MiningTask:
        """These rows alone, in this order."""
        return replace(
            self,
            **{name: [getattr(self, name)[place] for place in places] for name in _TEXTS},
            **{name: getattr(self, name).rows(places) for name in _PASSAGES},
        )

    def text(self, passage: int) -> str:
        return self.corpus["text"][int(passage)].as_py()

    def title(self, passage: int) -> str:
        return self.corpus["title"][int(passage)].as_py() or ""


@dataclass(frozen=True)
class Mined:
    """What was found for the rows of one task.

    Attributes:
        wanted: negatives asked for, of every row.
        negatives: of every row, hardest first, those of the input before all others.
        scores: fp32 [len(negatives.values)], similarity to the question.
        sources: uint8, the same length: where each came from (a place in `SOURCES`).
        positive_scores: fp32 [len(task.positives.values)].
        promoted: passages that rescoring found to answer the question after all; fp32 `promoted_scores`.
        removed: rule -> (question, passage) pairs that it kept from being negatives.
    """

    wanted: int
    negatives: Ragged
    scores: np.ndarray
    sources: np.ndarray
    positive_scores: np.ndarray
    promoted: Ragged
    promoted_scores: np.ndarray
    removed: dict[str, int]

    @property
    def short(self) -> np.ndarray:
        """bool [rows]: has fewer negatives than wanted."""
        return self.negatives.counts < self.wanted

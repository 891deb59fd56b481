"""Rows of any number of sources over one table of the passages they name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.records.sources.ragged import Ragged

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Rows:
    """Checked rows; passages are numbers of rows in `passages`. Texts stay in arrow buffers.

    Two passages with one id and different texts are two passages; one text (and title) under two ids is one.

    Attributes:
        name: what messages call the rows: their file, or the number of sources.
        question_ids, questions: arrow strings [n].
        query_prefixes: arrow strings [n], null where the contract's prefix holds.
        positives: the row's positives in file order, the one it is trained on first; never empty.
        negatives: in file order, each once, without any passage known to answer the question.
        known: every passage known to answer the question, from all rows of all sources that ask it; sorted.
        positive_scores, negative_scores: fp32, a teacher's score for each value of `positives` and `negatives`; NaN
            where the row has none.
        passages: arrow table of every passage that some row names: id, text, title, prefix (null: the contract's).
        corpora: arrow tables with the same columns: everything that validation may search.
        files: local files and folders that were read.
    """

    name: str
    question_ids: pa.Array
    questions: pa.Array
    query_prefixes: pa.Array
    positives: Ragged
    negatives: Ragged
    known: Ragged
    positive_scores: np.ndarray
    negative_scores: np.ndarray
    passages: pa.Table
    corpora: tuple[pa.Table, ...]
    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.question_ids)

    def digest(self) -> str:
        """64 hex digits over everything that training on these rows depends on (not over paths)."""
        import pyarrow as pa

        total = hashlib.sha256()
        columns = {"id": self.question_ids, "text": self.questions, "prefix": self.query_prefixes}
        for table in (pa.table(columns), self.passages):
            _add(total, table)
        for ragged in (self.positives, self.negatives, self.known):
            total.update(ragged.offsets.tobytes() + ragged.values.tobytes())
        total.update(self.positive_scores.tobytes() + self.negative_scores.tobytes())
        return total.hexdigest()

    def corpus_digest(self) -> str:
        """64 hex digits over everything that validation may search."""
        total = hashlib.sha256()
        for table in self.corpora:
            _add(total, table)
        return total.hexdigest()


class _Sink:
    """A file that hashes what is written to it."""

    closed = False

    def __init__(self, total: hashlib._Hash) -> None:
        self.write = lambda data: total.update(data) or len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def _add(total: hashlib._Hash, table: pa.Table) -> None:
    import pyarrow as pa

    # Chunks of one size: how a table was put together does not count.
    with pa.ipc.new_stream(pa.PythonFile(_Sink(total), "w"), table.schema) as stream:
        stream.write_table(table.combine_chunks(), max_chunksize=65536)

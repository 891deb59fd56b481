"""Rows of one source while they are read, then as arrays; texts go into arrow buffers chunk by chunk."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PipelineError
from pipeline.records.passages import passage_id
from pipeline.records.sources.check import Ref
from pipeline.records.sources.passages import passage_table
from pipeline.records.sources.ragged import Ragged

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 8192


@dataclass(frozen=True)
class Corpus:
    """Passages that rows name by id. The prefix of passages stands in the table; None keeps the contract's."""

    id: str
    place: str
    table: pa.Table
    query_prefix: str | None = None


@dataclass(frozen=True)
class Part:
    """One source: its rows as in `Rows`, over `passages`, which may hold far more than the rows name."""

    name: str
    place_of: Callable[[int], str]
    """Row number -> where it stands, for messages."""
    question_ids: pa.Array
    questions: pa.Array
    query_prefixes: pa.Array
    positives: Ragged
    negatives: Ragged
    known: Ragged
    positive_scores: np.ndarray
    negative_scores: np.ndarray
    passages: pa.Table
    files: tuple[Path, ...]


class Strings:
    """Text that is turned into arrow buffers as it comes."""

    def __init__(self) -> None:
        self._chunks: list[pa.Array] = []
        self._held: list[str] = []

    def extend(self, items: Iterable[str]) -> None:
        self._held += items
        if len(self._held) >= _CHUNK:
            self._flush()

    def finish(self) -> pa.Array:
        import pyarrow as pa

        self._flush()
        return pa.concat_arrays(self._chunks)

    def _flush(self) -> None:
        import pyarrow as pa

        self._chunks.append(pa.array(self._held, pa.large_string()))
        self._held = []


class _References:
    """The passages of one field (`pos_doc`, …), row after row."""

    def __init__(self) -> None:
        self.names, self.scores, self.counts = Strings(), array("f"), array("q")

    def add(self, items: Sequence[Ref]) -> None:
        self.names.extend(name for name, _ in items)
        self.scores.extend(score for _, score in items)
        self.counts.append(len(items))


class Draft:
    """Collects rows.

    Args:
        name: the source, for messages.
        unit: how a row's number is said: "row" or "line".
    """

    def __init__(self, name: str, unit: str) -> None:
        self.name, self.unit = name, unit
        self._numbers, self._corpus = array("q"), array("q")
        self._ids, self._questions = Strings(), Strings()
        self._fields = {name: _References() for name in ("pos_doc", "neg_doc", "known_pos_ids")}

    def where(self, number: int) -> str:
        return f"{self.name}:{number}" if self.unit == "line" else f"{self.name}: row {number}"

    def add(
        self,
        number: int,
        question_id: str,
        question: str,
        positives: Sequence[Ref],
        negatives: Sequence[Ref],
        known: Sequence[str] = (),
        corpus: int = 0,
    ) -> None:
        """One checked row; passages by id in corpus number `corpus`, or by `inline_key`."""
        self._numbers.append(number)
        self._corpus.append(corpus)
        self._ids.extend([question_id])
        self._questions.extend([question])
        for field, items in zip(self._fields.values(), (positives, negatives), strict=False):
            field.add(items)
        self._fields["known_pos_ids"].add([(name, 0.0) for name in known])

    def __len__(self) -> int:
        return len(self._numbers)

    def by_content(self, files: Sequence[Path]) -> Part:
        """The part whose passages were given as `inline_key`s; equal ones are one passage."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = {field: references.names.finish() for field, references in self._fields.items()}
        distinct = pc.unique(pa.concat_arrays(list(names.values())))
        halves = pc.split_pattern(distinct, "\0", max_splits=1)
        titles, texts = pc.list_element(halves, 0), pc.list_element(halves, 1)
        ids = pa.array((passage_id(text.as_py()) for text in texts), pa.large_string(), size=len(texts))
        numbers = {
            field: np.asarray(pc.index_in(found, value_set=distinct), np.int64) for field, found in names.items()
        }
        return self._part(numbers, passage_table(ids, texts, titles), None, files)

    def by_id(self, corpora: Sequence[Corpus], files: Sequence[Path]) -> Part:
        """The part whose passages were named by id.

        Raises:
            PipelineError: a positive or negative that its corpus does not hold.
        """
        import pyarrow as pa

        names = {field: references.names.finish() for field, references in self._fields.items()}
        ids = self._ids.finish()
        numbers = {field: self._look_up(field, found, corpora) for field, found in names.items()}
        for field in ("pos_doc", "neg_doc"):
            lost = np.flatnonzero(numbers[field] < 0)
            if len(lost):
                row = int(np.searchsorted(np.cumsum(self._fields[field].counts), lost[0], side="right"))
                raise PipelineError(
                    f"{self.where(self._numbers[row])} ({ids[row]}): {field} names passage "
                    f"{names[field][int(lost[0])].as_py()!r}, which is not in {corpora[self._corpus[row]].place}",
                    fix="use the rows and the corpus of the same data set",
                )
        prefixes = pa.array([item.query_prefix for item in corpora], pa.large_string())
        taken = prefixes.take(pa.array(np.asarray(self._corpus, np.int64)))
        return self._part(numbers, pa.concat_tables([item.table for item in corpora]), taken, files, ids)

    def _look_up(self, field: str, names: pa.Array, corpora: Sequence[Corpus]) -> np.ndarray:
        """Numbers of named passages in all corpora one after the other; -1 where there is none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        corpus_of = np.repeat(np.asarray(self._corpus, np.int64), np.asarray(self._fields[field].counts, np.int64))
        numbers, start = np.full(len(names), -1, np.int64), 0
        for number, corpus in enumerate(corpora):
            mask = corpus_of == number
            found = pc.index_in(names.filter(pa.array(mask)), value_set=corpus.table["id"])
            place = np.asarray(pc.fill_null(found, -1), np.int64)
            numbers[mask] = np.where(place < 0, -1, place + start)
            start += len(corpus.table)
        return numbers

    def _part(
        self,
        numbers: dict[str, np.ndarray],
        passages: pa.Table,
        query_prefixes: pa.Array | None,
        files: Sequence[Path],
        ids: pa.Array | None = None,
    ) -> Part:
        import pyarrow as pa

        ids = self._ids.finish() if ids is None else ids
        self._check_ids(ids)
        ragged, scores = {}, {}
        for field, references in self._fields.items():
            ragged[field] = Ragged.of_counts(np.asarray(references.counts, np.int64), numbers[field])
            scores[field] = np.asarray(references.scores, np.float32)
        known = ragged["known_pos_ids"]
        return Part(
            name=self.name,
            place_of=lambda row: self.where(self._numbers[row]),
            question_ids=ids,
            questions=self._questions.finish(),
            query_prefixes=pa.nulls(len(ids), pa.large_string()) if query_prefixes is None else query_prefixes,
            positives=ragged["pos_doc"],
            negatives=ragged["neg_doc"],
            # A passage known by an id that the corpus does not hold can never be met.
            known=known.keep(known.values >= 0),
            positive_scores=scores["pos_doc"],
            negative_scores=scores["neg_doc"],
            passages=passages,
            files=tuple(files),
        )

    def _check_ids(self, ids: pa.Array) -> None:
        import pyarrow.compute as pc

        if pc.count_distinct(ids).as_py() == len(ids):
            return
        seen: dict[str, int] = {}
        for row, name in enumerate(ids.to_pylist()):
            if name in seen:
                first = self.where(self._numbers[seen[name]])
                raise PipelineError(
                    f"{self.where(self._numbers[row])}: question id {name!r} was used before, at {first}",
                    fix="give every row an id of its own",
                )
            seen[name] = row

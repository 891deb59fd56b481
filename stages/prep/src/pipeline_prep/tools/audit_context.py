"""What the audit compares each row with: the corpus, the other rows of its question, near-duplicates."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.records.sources.corpora import Corpora
from pipeline_prep.duplicates import jaccard, shingles
from pipeline_prep.tools.judgements import folded
from pipeline_prep.tools.training_json import Document

if TYPE_CHECKING:
    import pyarrow as pa

_SHINGLES_KEPT = 20_000
Question = tuple[str, str]


class Passages:
    """The passages that a document's rows name, in the corpora that it names; texts stay in arrow buffers.

    Raises:
        PipelineError: a corpus cannot be read.
    """

    def __init__(self, document: Document) -> None:
        corpora = Corpora(use_instructions=False)
        found = [corpora.folder(folder) for folder in document.corpus_folders()]
        self._tables: dict[str, pa.Table] = {corpus.id: corpus.table for corpus in found}
        self._places = {name: _places(table, _named(document, name)) for name, table in self._tables.items()}
        self._shingles = lru_cache(maxsize=_SHINGLES_KEPT)(self._cut)

    @property
    def corpus_ids(self) -> tuple[str, ...]:
        return tuple(self._tables)

    def has(self, corpus_id: str, name: str) -> bool:
        return name in self._places.get(corpus_id, {})

    def has_any(self, names: set[str]) -> bool:
        """Whether some corpus holds one of these, named by a row or not."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array(sorted(names), pa.large_string())
        return any(pc.any(pc.is_in(table["id"], value_set=wanted)).as_py() for table in self._tables.values())

    def likeness(self, corpus_id: str, first: str, second: str) -> float:
        """Share of common word sequences of two passages; 0 where one of them is not there."""
        if not (self.has(corpus_id, first) and self.has(corpus_id, second)):
            return 0.0
        return jaccard(self._shingles(corpus_id, first), self._shingles(corpus_id, second))

    def _cut(self, corpus_id: str, name: str) -> frozenset[int]:
        return shingles(self._tables[corpus_id]["text"][self._places[corpus_id][name]].as_py())


class Answers:
    """Every passage that some row names as an answer, by question: its original id, and its text."""

    def __init__(self, document: Document) -> None:
        self._by_id: dict[Question, set[str]] = defaultdict(set)
        self._by_text: dict[Question, set[str]] = defaultdict(set)
        for row in range(len(document.rows)):
            known = document.known(row)
            self._by_id[document.question_of(row)].update(known)
            if text := _text_key(document, row):
                self._by_text[text].update(known)

    def of(self, document: Document, row: int) -> set[str]:
        """The answers of the row and of all rows that ask the same question."""
        text = _text_key(document, row)
        return self._by_id[document.question_of(row)] | (self._by_text[text] if text else set())


def _text_key(document: Document, row: int) -> Question | None:
    text = document.rows[row]["question"]
    return (document.id_of(row, "corpus_id"), folded(text)) if isinstance(text, str) and text.strip() else None


def _named(document: Document, corpus_id: str) -> list[str]:
    rows = (row for row in range(len(document.rows)) if document.id_of(row, "corpus_id") == corpus_id)
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys([*document.known(row), *document.passages(row, "neg_doc")]))
    return list(names)


def _places(table: pa.Table, names: list[str]) -> dict[str, int]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(pa.array(names, pa.large_string()), value_set=table["id"]).to_pylist()
    return {name: place for name, place in zip(names, found, strict=True) if place is not None}

"""BM25: the word-matching yardstick that every embedding model has to beat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.contract import EncodingContract
from pipeline.records.passages import Passage
from pipeline.records.results import Facts
from pipeline.retrieval.bm25 import IDENTITY, SETTINGS, Bm25Index
from pipeline_eval.identity import Identity
from pipeline_eval.metrics import Run


@dataclass(frozen=True)
class Bm25System:
    """Title and text are one field."""

    name: str = "bm25"

    @property
    def identity(self) -> Identity:
        return Identity(f"BM25 ({SETTINGS})", IDENTITY)

    @contextmanager
    def open(self, corpus: dict[str, Passage]) -> Iterator[Bm25Search]:
        yield Bm25Search(corpus)


class Bm25Search:
    """The passages of one corpus by their ids."""

    def __init__(self, corpus: dict[str, Passage]) -> None:
        self._ids, self.facts = list(corpus), Facts()
        plain = EncodingContract()  # no prefixes; title and text joined as everywhere else
        self._index = Bm25Index(plain.format_passage(item.text, item.title) for item in corpus.values())

    def search(self, queries: dict[str, str], k: int) -> Run:
        """The `k` best passages of each question. Passages that share no word with it are no answer."""
        run: Run = {}
        for query, text in queries.items():
            places, scores = self._index.top(text, k)
            run[query] = {self._ids[place]: score for place, score in zip(places, scores.tolist(), strict=True)}
        return run

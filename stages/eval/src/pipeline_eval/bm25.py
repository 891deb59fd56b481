"""BM25: the word-matching yardstick that every embedding model has to beat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from pipeline.contract import EncodingContract
from pipeline.records.passages import Passage
from pipeline.records.results import Facts
from pipeline.retrieval.bm25 import IDENTITY, SETTINGS, Bm25Index
from pipeline_eval.identity import Identity
from pipeline_eval.metrics import Run

Fields = Literal["separate", "joined"]
"""`separate`: title and text are scored apart and the scores added, as BEIR's published baseline has it (Thakur et al.
2021, https://arxiv.org/abs/2104.08663, section 4); `joined`: one text of both."""


@dataclass(frozen=True)
class Bm25System:
    """Passages by the words that they share with the question."""

    fields: Fields = "separate"
    name: str = "bm25"

    @property
    def identity(self) -> Identity:
        return Identity(f"BM25 ({SETTINGS}, fields {self.fields})", f"{IDENTITY} fields {self.fields}")

    @contextmanager
    def open(self, corpus: dict[str, Passage]) -> Iterator[Bm25Search]:
        yield Bm25Search(corpus, self.fields)


class Bm25Search:
    """The passages of one corpus by their ids."""

    def __init__(self, corpus: dict[str, Passage], fields: Fields = "separate") -> None:
        self._ids, self.facts = list(corpus), Facts()
        passages = corpus.values()
        if fields == "separate":
            self._index = Bm25Index((item.title for item in passages), (item.text for item in passages))
        else:
            plain = EncodingContract()  # no prefixes; title and text joined as everywhere else
            self._index = Bm25Index(plain.format_passage(item.text, item.title) for item in passages)

    def search(self, queries: dict[str, str], k: int) -> Run:
        """The `k` best passages of each question. Passages that share no word with it are no answer."""
        run: Run = {}
        for query, text in queries.items():
            places, scores = self._index.top(text, k)
            run[query] = {self._ids[place]: score for place, score in zip(places, scores.tolist(), strict=True)}
        return run

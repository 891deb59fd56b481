"""What `convert` carries from one format to another: rows, and the whole corpus with one id for each passage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.records.passages import passage_id
from pipeline.records.sources.assemble import known_positives
from pipeline.records.sources.passages import merge
from pipeline.records.sources.ragged import Ragged
from pipeline.records.sources.rows import Rows
from pipeline_prep.tools.references import references

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Row:
    """Passages are objects with the columns asked for and perhaps `score`; `known` are ids."""

    question_id: str
    question: str
    positives: list[dict[str, Any]]
    negatives: list[dict[str, Any]]
    known: list[str]


class Table:
    """Rows of one source with every passage of its corpora, also those that no row names.

    Attributes:
        corpus: arrow table id, text, title; ids distinct.
        renamed: passages that had to get another id, because theirs stands for another text too.
    """

    def __init__(self, source: Rows) -> None:
        self.source = source
        # Told apart by their ids too: one text under two ids stays two passages of the corpus.
        named = [table.set_column(3, "prefix", table["id"]) for table in (*source.corpora, source.passages)]
        whole, places = merge(named)
        ids, self.renamed = _distinct_ids(whole)
        self.corpus = whole.set_column(0, "id", ids).select(["id", "text", "title"])
        self._passages = self.corpus.take(places[-1])

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, *columns: str) -> Iterator[Row]:
        """Rows in order; of their passages the given columns of `corpus`."""
        source = self.source
        unscored = np.full(len(source.known.values), np.nan, np.float32)
        together = zip(
            source.question_ids,
            source.questions,
            references(source.positives, source.positive_scores, self._passages, columns),
            references(source.negatives, source.negative_scores, self._passages, columns),
            references(source.known, unscored, self._passages, ["id"]),
            strict=True,
        )
        for name, question, positives, negatives, known in together:
            yield Row(name.as_py(), question.as_py(), positives, negatives, [item["id"] for item in known])

    def scores(self) -> int:
        """How many passages of rows have a teacher's score."""
        given = (self.source.positive_scores, self.source.negative_scores)
        return sum(int((~np.isnan(scores)).sum()) for scores in given)

    def empty_texts(self) -> int:
        """How many passages of rows have a title alone."""
        import pyarrow.compute as pc

        return pc.sum(pc.equal(pc.utf8_trim_whitespace(self.source.passages["text"]), "")).as_py() or 0


def _distinct_ids(passages: pa.Table) -> tuple[pa.Array, int]:
    """Ids; a passage whose id stands for an earlier text is named by its title and text."""
    import pyarrow as pa

    seen: set[str] = set()
    ids, renamed = [], 0
    for batch in passages.select(["id", "title", "text"]).to_batches(8192):
        for item in batch.to_pylist():
            name = item["id"]
            if name in seen:
                name, renamed = passage_id(f"{item['title']}\0{item['text']}"), renamed + 1
            seen.add(name)
            ids.append(name)
    return pa.array(ids, pa.large_string()), renamed


def _titles(table: Table) -> int:
    import pyarrow.compute as pc

    return pc.sum(pc.not_equal(table.source.passages["title"], "")).as_py() or 0


def _own_ids(table: Table) -> int:
    columns = (table.source.passages[name] for name in ("id", "text"))
    return sum(name.as_py() != passage_id(text.as_py()) for name, text in zip(*columns, strict=True))


def _known(table: Table) -> int:
    """Answers that no row names among its positives."""
    source = table.source
    none = Ragged(np.zeros(len(source) + 1, np.int64), np.empty(0, np.int64))
    told = known_positives(source.questions, source.positives, none)
    return int(source.known.counts.sum() - told.counts.sum())


LOSSES = {
    "question_ids": ("question ids", len),
    "passage_ids": ("ids of passages", _own_ids),
    "titles": ("titles", _titles),
    "scores": ("scores", Table.scores),
    "several": (
        "rows with several positives (now a row for each, <id>_<number>)",
        lambda table: int((table.source.positives.counts > 1).sum()),
    ),
    "known": ("known positives (known_pos_ids) that stand in no row's pos_doc", _known),
    "corpus": (
        "passages that no row names",
        lambda table: len(table.corpus) - len(table.source.passages),
    ),
}
"""What a format may have no room for: in words, and how many a table has."""

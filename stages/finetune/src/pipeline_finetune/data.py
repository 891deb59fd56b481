"""Training rows as arrays: every id checked once, every text tokenised once, no Python objects in the loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, read_corpus
from pipeline.records.training import TrainingFile, TrainingRow

MISSING = -1
_CHUNK = 8192
_SHOWN = 5

Tokenize = Callable[[Sequence[str]], Iterable[Sequence[int]]]
log = logging.getLogger("pipeline")


class TokenTable:
    """Token ids of many texts in one int32 array; text `i` is `tokens[offsets[i] : offsets[i + 1]]`.

    `lengths` (int64 [n]) are the tokens of each text.
    """

    def __init__(self, texts: Sequence[str], tokenize: Tokenize) -> None:
        parts: list[np.ndarray] = [np.empty(0, np.int32)]
        lengths = [0]
        for start in range(0, len(texts), _CHUNK):
            for ids in tokenize(texts[start : start + _CHUNK]):
                parts.append(np.asarray(ids, np.int32))
                lengths.append(len(ids))
        self.tokens = np.concatenate(parts)
        self.offsets = np.cumsum(lengths, dtype=np.int64)
        self.lengths = np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class LoadedRows:
    """A training file as it was read and checked, with its corpus (id -> passage)."""

    rows: list[TrainingRow]
    corpus: dict[str, Passage]
    corpus_path: Path


@dataclass
class RowTable:
    """Rows of one file over a shared passage table.

    Attributes:
        question_ids: the rows' names, for messages.
        queries: tokens of each row's question.
        positive: int64 [n], passage index of each row's positive.
        negatives: int64 [n, train_n_passages - 1], first negatives in file order, `MISSING` where there are fewer.
        known: indices of every passage known to answer the row's question, its positive included.
    """

    question_ids: list[str]
    queries: TokenTable
    positive: np.ndarray
    negatives: np.ndarray
    known: list[np.ndarray] = field(repr=False)

    def __len__(self) -> int:
        return len(self.question_ids)


@dataclass
class TrainingData:
    """Training and validation rows and the tokens of every passage they name."""

    train: RowTable
    val: RowTable | None
    passages: TokenTable


def load_rows(path: Path, *, need_negatives: bool) -> LoadedRows:
    """Read a training file with its corpus and check that every row can be trained on.

    Raises:
        PipelineError: an unknown passage, an empty question, no rows, or rows without a negative where the loss
            needs one. The message names the file, the row and the id.
    """
    return _checked(path, TrainingFile.load(path), need_negatives)


def load_val_rows(path: Path | None) -> LoadedRows | None:
    """Validation rows, None where there are none: no path, no file, an empty file or no rows in it."""
    if path is None or not path.is_file() or not path.stat().st_size:
        return None
    file = TrainingFile.load(path)
    return _checked(path, file, need_negatives=False) if file.rows else None


def _checked(path: Path, file: TrainingFile, need_negatives: bool) -> LoadedRows:
    if not file.rows:
        raise PipelineError(f"{path}: holds no rows", fix="look at prep's summary: every question was filtered out")
    corpus = read_corpus(file.corpus_path)
    for number, row in enumerate(file.rows):
        where = f"{path}: row {number} ({row.question_id})"
        if not row.question.strip():
            raise PipelineError(f"{where} has an empty question")
        for name, ids in (("pos_doc", row.positives), ("neg_doc", row.negatives)):
            for item in ids:
                if item not in corpus:
                    raise PipelineError(
                        f"{where}: {name} names passage {item!r}, which is not in {file.corpus_path}",
                        fix="use the training file and the corpus of the same prep run",
                    )
    known = known_positives(file.rows)
    bare = [row.question_id for row, positives in zip(file.rows, known, strict=True) if not _negatives(row, positives)]
    if bare and need_negatives:
        shown = ", ".join(bare[:_SHOWN]) + ("…" if len(bare) > _SHOWN else "")
        raise PipelineError(
            f"{path}: {len(bare)} of {len(file.rows)} rows have no hard negative ({shown})",
            fix="mine negatives in prep (hard_negatives_to_mine), or train with in_batch_negatives=true",
        )
    return LoadedRows(file.rows, corpus, file.corpus_path)


def known_positives(rows: Sequence[TrainingRow]) -> list[set[str]]:
    """For each row every passage known to answer its question, from all rows that ask the same."""
    by_question: dict[str, set[str]] = {}
    for row in rows:
        by_question.setdefault(row.question, set()).update(row.known_positives)
    return [by_question[row.question] for row in rows]


def build_data(
    train: LoadedRows,
    val: LoadedRows | None,
    *,
    n_passages: int,
    format_query: Callable[[str], str],
    format_passage: Callable[[str, str], str],
    tokenize_queries: Tokenize,
    tokenize_passages: Tokenize,
) -> TrainingData:
    """Tokenise every text once. Only passages that some row names are kept.

    Args:
        n_passages: passages per query: the positive and the first n_passages - 1 negatives in file order.
    """
    index: dict[tuple[str, str], int] = {}
    texts: list[str] = []

    def number_of(passage: Passage) -> int:
        name = (passage.id, passage.text)  # two files may use one id for different texts
        if name not in index:
            index[name] = len(texts)
            texts.append(format_passage(passage.text, passage.title))
        return index[name]

    def table(loaded: LoadedRows) -> RowTable:
        rows, corpus, known = loaded.rows, loaded.corpus, known_positives(loaded.rows)
        positive = np.array([number_of(corpus[row.positives[0]]) for row in rows])
        negatives = np.full((len(rows), n_passages - 1), MISSING, np.int64)
        for number, row in enumerate(rows):
            chosen = _negatives(row, known[number])[: n_passages - 1]
            negatives[number, : len(chosen)] = [number_of(corpus[item]) for item in chosen]
        # A known positive that no row names can never be a candidate: nothing to mask, nothing to tokenise.
        named = ([(item, corpus[item].text) for item in items if item in corpus] for items in known)
        return RowTable(
            question_ids=[row.question_id for row in rows],
            queries=TokenTable([format_query(row.question) for row in rows], tokenize_queries),
            positive=positive,
            negatives=negatives,
            known=[np.array([index[name] for name in names if name in index]) for names in named],
        )

    train_table = table(train)
    val_table = table(val) if val else None
    _report_short_rows(train_table, n_passages)
    return TrainingData(train_table, val_table, TokenTable(texts, tokenize_passages))


def _negatives(row: TrainingRow, known: set[str]) -> list[str]:
    """The row's negatives in file order, each once, without passages known to answer the question."""
    return [item for item in dict.fromkeys(row.negatives) if item not in known]


def _report_short_rows(rows: RowTable, n_passages: int) -> None:
    short = int((rows.negatives == MISSING).any(axis=1).sum())
    if short:
        log.info(
            "%d of %d rows have fewer than %d negatives and train with what they have "
            "(raise hard_negatives_to_mine in prep or lower train_n_passages)",
            short,
            len(rows),
            n_passages - 1,
        )

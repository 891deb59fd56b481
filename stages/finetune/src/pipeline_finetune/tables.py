"""Writes the folder that `data.open_data` opens: rows as arrays, texts as tokens, never all texts at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.records.sources.passages import merge
from pipeline.records.sources.rows import Rows
from pipeline_finetune.data import MISSING, Encode
from pipeline_finetune.tokens import CHUNK, Ragged, TokenTable, write_tokens

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Columns:
    """One set of rows as arrays; passages are numbers in `rows.passages` (see `RowTable` for the shapes)."""

    rows: Rows
    positive: np.ndarray
    negatives: np.ndarray
    teacher: np.ndarray

    @classmethod
    def of(cls, rows: Rows, n_negatives: int) -> Columns:
        """The first positive and the first `n_negatives` negatives of each row."""
        first = rows.positives.offsets[:-1]
        negatives = np.full((len(rows), n_negatives), MISSING, np.int64)
        teacher = np.full((len(rows), 1 + n_negatives), np.nan, np.float32)
        teacher[:, 0] = rows.positive_scores[first]
        row = rows.negatives.row_numbers
        column = np.arange(len(row)) - rows.negatives.offsets[row]
        taken = column < n_negatives
        row, column = row[taken], column[taken]
        negatives[row, column] = rows.negatives.values[taken]
        teacher[row, 1 + column] = rows.negative_scores[taken]
        return cls(rows, rows.positives.values[first], negatives, teacher)

    @property
    def named(self) -> np.ndarray:
        """int64, ascending: every passage that some row is trained (or validated) with."""
        every = np.unique(np.concatenate([self.positive, self.negatives.ravel()]))
        return every[every != MISSING]


def build(
    folder: Path,
    train: Rows,
    val: Rows | None,
    *,
    n_passages: int,
    eval_negatives: int,
    encode: Encode,
    val_corpus_size: int,
    seed: int,
) -> None:
    """Write every table of `TrainingData` into an empty folder."""
    parts = {"train": Columns.of(train, n_passages - 1)}
    if val is not None:
        parts["val"] = Columns.of(val, eval_negatives)
    _report_short_rows(parts["train"])
    named = {name: part.named for name, part in parts.items()}
    table, numbers = merge([part.rows.passages.take(_arrow(named[name])) for name, part in parts.items()])
    for (name, part), places in zip(parts.items(), numbers, strict=True):
        lookup = np.full(len(part.rows.passages), MISSING, np.int64)
        lookup[named[name]] = places
        _write_rows(folder, name, part, lookup)
        if encode.tokenize_pairs:
            _write_pairs(folder, name, part, encode)
        else:
            write_tokens(folder, f"{name}.queries", _query_tokens(part.rows, encode))
    if not encode.tokenize_pairs:
        write_tokens(folder, "passages", _passage_tokens(table, encode))
    if val is not None and val_corpus_size:
        searched, relevant = sample_passages(val, val_corpus_size, seed)
        write_tokens(folder, "val_corpus", _passage_tokens(searched, encode))
        _save_ragged(folder, "val_relevant", relevant)


def sample_passages(val: Rows, size: int, seed: int) -> tuple[pa.Table, Ragged]:
    """What validation searches: every passage that `val` names and others of its corpora, `size` in all.

    Returns:
        The passages in an order that tells nothing, and for each row those known to answer its question.
    """
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    whole = pa.concat_tables(val.corpora)
    chosen = np.sort(rng.permutation(len(whole))[:size])
    table, (named, _) = merge([val.passages, whole.take(_arrow(chosen))])
    kept = max(size, len(val.passages))  # the named ones stand first
    order = rng.permutation(min(kept, len(table)))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    relevant = Ragged(val.known.offsets, place[named[val.known.values]])
    return table.take(_arrow(order)), relevant


def _write_rows(folder: Path, name: str, part: Columns, lookup: np.ndarray) -> None:
    import pyarrow as pa

    ids = pa.table({"question_id": part.rows.question_ids})
    with pa.OSFile(str(folder / f"{name}.names.arrow"), "wb") as sink, pa.ipc.new_file(sink, ids.schema) as stream:
        stream.write_table(ids)
    np.save(folder / f"{name}.positive.npy", lookup[part.positive])
    # `lookup[MISSING]` is some passage's number: only real ones are looked up.
    negatives = np.where(part.negatives == MISSING, MISSING, lookup[part.negatives])
    np.save(folder / f"{name}.negatives.npy", negatives)
    known = Ragged(part.rows.known.offsets, lookup[part.rows.known.values])
    # A known positive that no row names can never be a candidate: there is nothing to mask.
    _save_ragged(folder, f"{name}.known", known.keep(known.values != MISSING))
    if not np.isnan(part.teacher).all():
        np.save(folder / f"{name}.teacher.npy", part.teacher)


def _save_ragged(folder: Path, name: str, ragged: Ragged) -> None:
    np.save(folder / f"{name}.offsets.npy", ragged.offsets)
    np.save(folder / f"{name}.values.npy", ragged.values)


def _query_tokens(rows: Rows, encode: Encode) -> Iterator[Iterable[Sequence[int]]]:
    for start in range(0, len(rows), CHUNK):
        yield encode.tokenize_queries(_queries(rows, start, CHUNK, encode))  # type: ignore[misc]


def _passage_tokens(table: pa.Table, encode: Encode) -> Iterator[Iterable[Sequence[int]]]:
    for start in range(0, len(table), CHUNK):
        yield encode.tokenize_passages(_passages(table.slice(start, CHUNK), encode))  # type: ignore[misc]


def _write_pairs(folder: Path, name: str, part: Columns, encode: Encode) -> TokenTable:
    """Pairs row after row, the positive first; a missing negative is an empty item that begins at 0."""
    numbers = np.concatenate([part.positive[:, None], part.negatives], axis=1)
    height = max(1, CHUNK // numbers.shape[1])
    starts: list[np.ndarray] = []

    def chunks() -> Iterator[list[Sequence[int]]]:
        for first in range(0, len(numbers), height):
            block = numbers[first : first + height]
            present = block != MISSING
            queries = _queries(part.rows, first, height, encode)
            repeated = [queries[row] for row in np.nonzero(present)[0]]
            texts = _passages(part.rows.passages.take(_arrow(block[present])), encode)
            ids, begins = encode.tokenize_pairs(repeated, texts)  # type: ignore[misc]
            items: list[Sequence[int]] = [()] * block.size
            begin = np.zeros(block.size, np.int32)
            for place, item, start in zip(np.flatnonzero(present), ids, begins, strict=True):
                items[place], begin[place] = item, start
            starts.append(begin)
            yield items

    table = write_tokens(folder, f"{name}.pairs", chunks())
    np.save(folder / f"{name}.starts.npy", np.concatenate(starts))
    return table


def _queries(rows: Rows, start: int, count: int, encode: Encode) -> list[str]:
    texts, prefixes = (column.slice(start, count).to_pylist() for column in (rows.questions, rows.query_prefixes))
    put = _prefixed(encode, "query_prefix")
    return [put(prefix).format_query(text) for text, prefix in zip(texts, prefixes, strict=True)]


def _passages(table: pa.Table, encode: Encode) -> list[str]:
    put = _prefixed(encode, "passage_prefix")
    columns = (table[name].to_pylist() for name in ("text", "title", "prefix"))
    return [put(prefix).format_passage(text, title) for text, title, prefix in zip(*columns, strict=True)]


def _prefixed(encode: Encode, name: str) -> Callable[[str | None], object]:
    """The contract, or the contract under another prefix."""
    return cache(lambda prefix: encode.contract if prefix is None else encode.contract.with_(**{name: prefix}))


def _arrow(numbers: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(numbers)


def _report_short_rows(part: Columns) -> None:
    short = int((part.negatives == MISSING).any(axis=1).sum())
    if short:
        log.info(
            "%d of %d rows have fewer than %d negatives and train with what they have "
            "(raise hard_negatives_to_mine in prep or lower train_n_passages)",
            short,
            len(part.rows),
            part.negatives.shape[1],
        )

"""Arrow tables of passages: the columns id, text, title and prefix."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK, _DIGEST = 8192, 16
COLUMNS = ("id", "text", "title", "prefix")


def passage_table(ids: pa.Array, texts: pa.Array, titles: pa.Array | None, prefix: str | None = None) -> pa.Table:
    """A table of large strings; missing titles are empty, `prefix` stands beside every passage."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.large_string()
    empty = pa.array([""] * len(ids), kind) if titles is None else pc.fill_null(titles.cast(kind), "")
    prefixes = pa.array([prefix] * len(ids), kind)
    return pa.table([ids.cast(kind), texts.cast(kind), empty, prefixes], names=COLUMNS)


def merge(tables: Sequence[pa.Table]) -> tuple[pa.Table, list[np.ndarray]]:
    """Put tables together, every distinct passage (prefix, title and text) once, in order of appearance.

    Returns:
        The table, and for each given table its passages' rows in it (int64).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = pa.concat_tables(tables)
    keys = pa.array(_digests(whole), pa.binary(_DIGEST))
    numbers = np.asarray(pc.index_in(keys, value_set=pc.unique(keys)), np.int64)
    first = np.zeros(numbers.max() + 1 if len(numbers) else 0, np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    borders = np.cumsum([len(table) for table in tables])[:-1]
    return whole.take(pa.array(first)).combine_chunks(), np.split(numbers, borders)


def _digests(table: pa.Table) -> Iterator[bytes]:
    """A hash of each passage: joining its columns to compare them would hold every text several times more."""
    for batch in table.select(["prefix", "title", "text"]).to_batches(_CHUNK):
        for passage in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield hashlib.blake2b(repr(passage).encode(), digest_size=_DIGEST).digest()

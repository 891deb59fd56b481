"""Passages and the corpus folder that training files point at (`train.parquet` + `merlin_metadata.json`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.run.files import atomic_open, write_json

if TYPE_CHECKING:
    import pyarrow as pa

CORPUS_FILE = "train.parquet"
METADATA_FILE = "merlin_metadata.json"


@dataclass(frozen=True)
class Passage:
    """One retrievable piece of text. `documents` are the source files it stands in."""

    id: str
    text: str
    title: str = ""
    documents: tuple[str, ...] = field(default=(), compare=False)


def passage_id(text: str) -> str:
    """`d_` and 16 hex digits of the text's sha256: the same text has the same id in every run."""
    return "d_" + hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def write_corpus(folder: Path, passages: Iterable[Passage], corpus_id: str) -> Path:
    """Write the corpus folder; columns id, text and title."""
    import pyarrow as pa

    rows = list(passages)
    table = pa.table(
        {
            "id": [row.id for row in rows],
            "text": [row.text for row in rows],
            "title": [row.title for row in rows],
        }
    )
    return write_corpus_table(folder, table, {"corpus_id": corpus_id})


def write_corpus_table(folder: Path, table: pa.Table, metadata: dict[str, Any]) -> Path:
    """Write the corpus folder from an arrow table with the columns id, text and title.

    Args:
        metadata: `corpus_id`, and perhaps instructions; the class is ours.
    """
    import pyarrow.parquet as pq

    with atomic_open(folder / CORPUS_FILE, "wb") as stream:
        pq.write_table(table.select(["id", "text", "title"]), stream)
    write_json(folder / METADATA_FILE, {**metadata, "class": "TextQADataset"})
    return folder


def read_corpus(folder: Path) -> dict[str, Passage]:
    """Read a corpus folder: id -> passage, in file order.

    Raises:
        PipelineError: metadata or passages are missing or malformed, or an id stands for two texts.
    """
    from pipeline.records.sources.corpora import Corpora  # which imports this module

    table = Corpora(use_instructions=False).folder(folder).table
    columns = (table[name].to_pylist() for name in ("id", "text", "title"))
    return {key: Passage(key, text, title) for key, text, title in zip(*columns, strict=True)}

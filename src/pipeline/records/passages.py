"""Passages and the corpus folder that training files point at (`train.parquet` + `merlin_metadata.json`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.run.files import atomic_open, read_json, write_json

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
    """Read a corpus folder: id -> passage, in file order."""
    import pyarrow.parquet as pq

    metadata, path = folder / METADATA_FILE, folder / CORPUS_FILE
    if not metadata.is_file():
        raise PipelineError(f"{metadata} does not exist", fix="the corpus folder needs it: run prep again")
    read_json(metadata)
    if not path.is_file():
        raise PipelineError(f"{path} does not exist", fix="the corpus folder needs it: run prep again")
    table = pq.read_table(path)
    missing = {"id", "text"} - set(table.column_names)
    if missing:
        raise PipelineError(f"{path}: lacks the columns {sorted(missing)}, found {table.column_names}")
    ids, texts = table["id"].to_pylist(), table["text"].to_pylist()
    titles = table["title"].to_pylist() if "title" in table.column_names else [""] * len(ids)
    return {str(key): Passage(str(key), text, title or "") for key, text, title in zip(ids, texts, titles, strict=True)}

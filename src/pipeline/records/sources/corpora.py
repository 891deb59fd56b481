"""Corpus folders (`merlin_metadata.json` and a table of passages), each read once for all sources."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.records.passages import METADATA_FILE
from pipeline.records.sources.check import as_id, as_object, as_text
from pipeline.records.sources.draft import Corpus
from pipeline.records.sources.files import first_line, records_of_table
from pipeline.records.sources.passages import passage_table
from pipeline.run.files import read_json

if TYPE_CHECKING:
    import pyarrow as pa

_CLASS = "TextQADataset"
_ENDINGS = (".parquet", ".arrow", ".jsonl")


class Corpora:
    """Every corpus of a read.

    Args:
        use_instructions: take the prefixes of queries and passages from the corpora's metadata.
    """

    def __init__(self, use_instructions: bool) -> None:
        self.use_instructions = use_instructions
        self._by_place: dict[str, Corpus] = {}
        self._place_of: dict[str, str] = {}

    def folder(self, folder: Path) -> Corpus:
        """The corpus in a folder.

        Raises:
            PipelineError: metadata or passages are missing or malformed; another folder has the same corpus_id.
        """
        place = os.path.normpath(folder.absolute())
        if place not in self._by_place:
            path = folder / METADATA_FILE
            if not path.is_file():
                raise PipelineError(f"{path} does not exist", fix="the corpus folder needs it: run prep again")
            self.add(place, as_object(read_json(path), str(path)), str(path), lambda: _read_folder(folder))
        return self._by_place[place]

    def add(self, place: str, metadata: dict[str, Any], where: str, read: Any, kind: str | None = _CLASS) -> Corpus:
        """Note a corpus under its id; `read()` gives its table with the columns id, text and perhaps title."""
        if kind and metadata.get("class") != kind:
            raise PipelineError(f"{where}: class {metadata.get('class')!r} is not supported", fix=f"use {kind}")
        corpus_id = as_id(metadata.get("corpus_id"), where, "corpus_id")
        before = self._place_of.setdefault(corpus_id, place)
        if before != place:
            raise PipelineError(f"corpus_id {corpus_id!r} stands for two corpora: {before} and {place}")
        query, passage = (self._prefix(metadata, f"{name}_instruction", where) for name in ("query", "passage"))
        table = _checked(read(), place)
        titles = table["title"] if "title" in table.column_names else None
        self._by_place[place] = Corpus(
            corpus_id, place, passage_table(table["id"], table["text"], titles, passage), query
        )
        return self._by_place[place]

    def need_no_instructions(self, name: str) -> None:
        """Refuse a source without metadata where its prefixes should come from there."""
        if self.use_instructions:
            raise PipelineError(
                f"{name}: use_dataset_instruction=true, but only corpora with metadata name an instruction",
                fix="set query_prefix and passage_prefix, and use_dataset_instruction=false",
            )

    def _prefix(self, metadata: dict[str, Any], name: str, where: str) -> str | None:
        if not self.use_instructions:
            return None
        instruction = metadata.get(name)
        return as_text(instruction, where, name).strip() + " " if instruction else ""


def _read_folder(folder: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    every = sorted(path for path in folder.rglob("*") if path.suffix in _ENDINGS and path.is_file())
    paths = [path for path in every if "train" in path.stem] or every
    if not paths:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        raise PipelineError(f"{folder} holds no table of passages (found {found})", fix="it needs a train.parquet")
    tables = []
    for path in paths:
        try:
            if path.suffix == ".parquet":
                tables.append(_columns(pq.read_table(path, memory_map=True), path))
            elif path.suffix == ".arrow":
                tables.append(_columns(_open_arrow(path), path))
            else:
                tables.append(_columns(_from_json(path), path))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise PipelineError(f"{path}: not readable as a table of passages: {first_line(error)}") from error
    return pa.concat_tables(tables)


def _open_arrow(path: Path) -> pa.Table:
    """An arrow file, or the stream that `datasets` writes under the same ending."""
    import pyarrow as pa

    mapped = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(mapped).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_stream(mapped).read_all()


def _from_json(path: Path) -> pa.Table:
    import pyarrow as pa

    rows = {"id": [], "text": [], "title": []}
    for line, value in records_of_table(path, "jsonl"):
        where = f"{path}:{line}"
        record = as_object(value, where)
        rows["id"].append(as_id(record.get("id"), where, "id"))
        rows["text"].append(as_text(record.get("text"), where, "text"))
        rows["title"].append(str(record.get("title") or ""))
    return pa.table(rows)


def _columns(table: pa.Table, path: Path) -> pa.Table:
    """The columns that matter, as strings: whole-number ids become text."""
    import pyarrow as pa

    if missing := [name for name in ("id", "text") if name not in table.column_names]:
        raise PipelineError(f"{path}: lacks the columns {missing}, found {table.column_names}")
    names = [name for name in ("id", "text", "title") if name in table.column_names]
    for name in names:
        kind = table.schema.field(name).type
        if name == "id" and not (pa.types.is_integer(kind) or _is_text(kind)):
            raise PipelineError(f"{path}: the column id must hold text or whole numbers, found {kind}")
        if name != "id" and not (_is_text(kind) or pa.types.is_null(kind)):
            raise PipelineError(f"{path}: the column {name} must hold text, found {kind}")
    chosen = table.select(names).cast(pa.schema([(name, pa.large_string()) for name in names]))
    chosen.validate(full=True)
    return chosen


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or (pa.types.is_dictionary(kind) and _is_text(kind.value_type))
    )


def _checked(table: pa.Table, place: str) -> pa.Table:
    """Ids are there and name one passage each."""
    import pyarrow.compute as pc

    for name in ("id", "text"):
        if table[name].null_count:
            row = pc.index(pc.is_null(table[name]), True).as_py()
            raise PipelineError(f"{place}: passage in row {row} has no {name}")
    distinct = pc.count_distinct(table["id"]).as_py()
    if distinct == len(table):
        return table
    pairs = table.group_by(["id", "text"]).aggregate([])
    if len(pairs) != distinct:
        counts = pc.value_counts(pairs["id"])
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise PipelineError(
            f"{place}: passage id {twice!r} stands for several texts", fix="give each passage its own id"
        )
    return table

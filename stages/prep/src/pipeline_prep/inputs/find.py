"""Which files an input consists of and what they hold; the content says so, not the name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records import sdg
from pipeline.records.sources.files import kind_of_file, names_a_corpus, records_of_json, records_of_table
from pipeline.records.sources.records import ACCEPTED, is_labelled
from pipeline.run.files import read_json

SDG, PAIRS, IDS = "records of sdg", "labelled pairs", "rows with passage ids and a corpus"
_SHOWN = 12
_FIX = f"accepted: records of sdg (file_name, chunks, deduplicated_qa_pairs); {ACCEPTED.removeprefix('accepted: ')}"


@dataclass(frozen=True)
class InputFile:
    """A file, its `kind` (json, jsonl, csv, tsv, parquet) and its `layout` (SDG, PAIRS or IDS)."""

    path: Path
    kind: str
    layout: str

    def __str__(self) -> str:
        return f"{self.path.name} holds {self.layout} ({self.kind})"


def find_files(path: Path) -> list[InputFile]:
    """The files to read, all of one layout.

    Raises:
        PipelineError: nothing is there, a file is of no known format, a folder mixes layouts (all files are listed), or
            two of its files differ in their endings alone, as copies of one set do.
    """
    chosen = sdg.record_files(path)
    if not path.is_dir():
        return [look(chosen[0])]
    # Beside `generated_batch*.json` logs, reports and the hand-off's file of the same records may lie; another file of
    # data may not: which one counts?
    batches = chosen[0].parent == path and chosen[0].name.startswith(sdg.BATCH)
    known = [*chosen, *_handed_off(path)]
    every = [*chosen, *(item for item in sdg.data_files(path) if item not in known)] if batches else chosen
    found, unknown = [], []
    for item in every:
        try:
            found.append(look(item))
        except PipelineError as error:
            if len(every) == 1:
                raise
            if item in chosen:
                unknown.append(f"{item.name}: {error.message.removeprefix(str(item)).lstrip(': ')[:120]}")
    stems = {item.path.stem for item in found}
    beside = any(item.path not in chosen for item in found)
    if unknown or beside or len({item.layout for item in found}) > 1 or len(stems) < len(found):
        raise PipelineError(
            f"{path} is a folder of mixed formats, copies or broken files: {_listed([*unknown, *map(str, found)])}",
            fix="name the file to read, or move the others away",
        )
    return found


def _listed(items: list[str]) -> str:
    more = f"; and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more


def _handed_off(folder: Path) -> list[Path]:
    """The file that a hand-off names; none if it leads nowhere, for the batches are the same records."""
    try:
        return sdg.record_files(folder / sdg.HANDOFF)
    except PipelineError:
        return []


def look(path: Path) -> InputFile:
    """What one file holds.

    Raises:
        PipelineError: the file is empty, broken or of no known format.
    """
    kind = kind_of_file(path)
    if kind in ("csv", "tsv"):
        return InputFile(path, kind, PAIRS)
    if kind == "json":
        document = read_json(path)
        if names_a_corpus(document):
            return InputFile(path, kind, IDS)
        first = next(iter(records_of_json(path, document)), None)
    else:
        first = next(iter(records_of_table(path, kind)), None)
    if first is None:
        raise PipelineError(f"{path} holds no rows", fix="run sdg again, or look at what wrote the file")
    return InputFile(path, kind, _layout(path, first[1]))


def _layout(path: Path, record: Any) -> str:
    if sdg.is_record(record):
        return SDG
    if is_labelled(record):
        return PAIRS
    keys = ", ".join(f"{name!s:.40}" for name in list(record)[:12]) if isinstance(record, dict) else ""
    what = f"an object with the keys {keys or '(none)'}" if isinstance(record, dict) else type(record).__name__
    raise PipelineError(f"{path}: no known format; the first row is {what}", fix=_FIX)

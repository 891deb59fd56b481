"""`pipeline data convert`: one file format of training rows into another."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.passages import METADATA_FILE
from pipeline.records.sources.beir import is_beir
from pipeline.records.sources.check import as_list
from pipeline.records.sources.files import kind_of_file, records_of_json, records_of_table
from pipeline.records.sources.read import read_sources
from pipeline.records.sources.records import other_fields
from pipeline.records.sources.spec import HUB
from pipeline.records.training import REQUIRED
from pipeline.run.files import read_json
from pipeline_prep.tools.judgements import qrels_file
from pipeline_prep.tools.outputs import check_folder, check_output
from pipeline_prep.tools.table import LOSSES, Table
from pipeline_prep.tools.targets import TARGETS, Options, corpus_beside

_BY_ENDING = {".json": "corpus-ids", ".csv": "columns", ".tsv": "columns", ".parquet": "columns", "": "beir"}
_ENDINGS = {
    "inline": (".jsonl",),
    "columns": (".jsonl", ".csv", ".tsv", ".parquet"),
    "corpus-ids": (".json",),
    "cohere": (".jsonl",),
}
log = logging.getLogger("pipeline")


def command(input: str, output: str, to: str | None, corpus_id: str | None, split: str, overwrite: bool) -> int:
    target = Path(output).expanduser()
    to = to or _guessed(target)
    if to in _ENDINGS and target.suffix not in _ENDINGS[to]:
        raise PipelineError(f"{output}: {to} ends with {' or '.join(_ENDINGS[to])}", fix="change the ending, or --to")
    source = _source(input, split)
    options = Options(corpus_id or target.stem, split)
    table = read_table(source, target, to, split, overwrite)
    if "empty" not in TARGETS[to].holds and (count := table.empty_texts()):
        raise PipelineError(
            f"{input}: {count} passages have a title and no text, which {to} cannot hold",
            fix="--to corpus-ids or beir",
        )
    TARGETS[to].write(table, target.resolve(), options)
    log.info("%s -> %s: %d rows, %d passages, as %s", input, output, len(table), len(table.corpus), to)
    for text in left_out(source, table, to):
        log.info("left out: %s", text)
    return 0


def read_table(source: str, target: Path, to: str, split: str, overwrite: bool) -> Table:
    """Read the input, after making sure that the output may be written."""
    inputs = [] if source.startswith(HUB) else [Path(source)]
    places = [target, corpus_beside(target)] if to == "corpus-ids" else [target]
    for place in places:
        check_output(place, inputs, overwrite)
    if to == "beir":
        check_folder(target, ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv"))
    elif target.is_dir():
        raise PipelineError(f"{target} is a folder", fix="name a file, or --to beir")
    # As for validation: of BEIR a question with several answers stays one row.
    rows = read_sources(source, seed=0, kind="val")
    if rows is None:
        raise PipelineError(f"{source} holds no rows")
    for place in places:
        check_output(place, rows.files, overwrite)
    return Table(rows)


def left_out(source: str, table: Table, to: str) -> Iterator[str]:
    """What the target has no room for, with counts, and the input's fields that belong to no format."""
    for name, (words, count) in LOSSES.items():
        if name not in TARGETS[to].holds and (lost := count(table)):
            yield f"{lost:,} {words}: {to} has no room for them"
    if table.renamed and "passage_ids" in TARGETS[to].holds:
        yield f"{table.renamed:,} ids that stand for another text too: these passages have a new id"
    for name, count in _other_fields(source).most_common():
        yield f"{count:,} times the field {name}"


def _other_fields(source: str) -> Counter[str]:
    """Fields of the input's rows that `read_sources` does not read."""
    path = Path(source).expanduser()
    if source.startswith(HUB) or is_beir(path):
        return Counter()
    kind = kind_of_file(path)
    found: Counter[str] = Counter()
    if kind != "json":
        for _, record in records_of_table(path, kind):
            found.update(other_fields(record, source))
        return found
    document = read_json(path)
    if not isinstance(document, dict) or "corpus" not in document:
        for _, record in records_of_json(path, document):
            found.update(other_fields(record, source))
        return found
    for row in document["data"]:
        found.update(name for name in row if name not in (*REQUIRED, "known_pos_ids"))
    found.update(name for name in document if name not in ("corpus", "data"))
    for entry in as_list(document["corpus"]):
        metadata = read_json(path.parent / entry["path"] / METADATA_FILE)
        found.update(f"{name} of the corpus" for name in metadata if name not in ("corpus_id", "class"))
    return found


def _source(given: str, split: str) -> str:
    """What to read: of a BEIR folder the judgements of the split."""
    path = Path(given).expanduser()
    if given.startswith(HUB):
        return given
    if not path.exists():
        raise PipelineError(f"{given} does not exist")
    if not (path.is_dir() and is_beir(path)):
        return str(path)
    return str(qrels_file(path, split))


def _guessed(output: Path) -> str:
    if output.suffix not in _BY_ENDING:
        raise PipelineError(f"{output}: the ending does not say which format is meant", fix=f"--to {'|'.join(TARGETS)}")
    return _BY_ENDING[output.suffix]

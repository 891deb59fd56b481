"""`pipeline data convert`: any input of prep, or rows of training, in another file format."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.passages import METADATA_FILE
from pipeline.records.sources.beir import is_beir, judgements
from pipeline.records.sources.check import as_list
from pipeline.records.sources.files import kind_of_file, names_a_corpus, records_of_json, records_of_table
from pipeline.records.sources.read import read_sources
from pipeline.records.sources.records import other_fields
from pipeline.records.sources.rows import Rows
from pipeline.records.sources.spec import HUB
from pipeline.records.training import REQUIRED
from pipeline.run.files import read_json
from pipeline_prep.inputs.find import IDS, PAIRS, SDG, find_files
from pipeline_prep.tools.judgements import qrels_file
from pipeline_prep.tools.outputs import check_folder, check_output
from pipeline_prep.tools.sdg_rows import read_sdg_rows
from pipeline_prep.tools.table import LOSSES, Table
from pipeline_prep.tools.targets import TARGETS, Options, corpora_beside

_BY_ENDING = {".json": "corpus-ids", ".csv": "columns", ".tsv": "columns", ".parquet": "columns", "": "beir"}
_ENDINGS = {
    "inline": (".jsonl",),
    "columns": (".jsonl", ".csv", ".tsv", ".parquet"),
    "corpus-ids": (".json",),
    "cohere": (".jsonl",),
}
BEIR = "a BEIR folder"
log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Source:
    """What to read: a data set of the hub, the judgements of a BEIR folder, or the files of one layout."""

    given: str
    places: tuple[str, ...]
    layout: str

    @property
    def inputs(self) -> list[Path]:
        return [] if self.layout == HUB else [Path(self.given).expanduser(), *map(Path, self.places)]


def command(input: str, output: str, to: str | None, corpus_id: str | None, split: str, overwrite: bool) -> int:
    target = Path(output).expanduser()
    to = to or _guessed(target)
    if to in _ENDINGS and target.suffix not in _ENDINGS[to]:
        raise PipelineError(f"{output}: {to} ends with {' or '.join(_ENDINGS[to])}", fix="change the ending, or --to")
    source = _source(input, split)
    options = Options(corpus_id or target.stem, split)
    places = _check_places(source, target, to, split, overwrite)
    rows, fields = _read(source)
    for place in places:
        check_output(place, rows.files, overwrite)
    table = Table(rows)
    if "empty" not in TARGETS[to].holds and (count := table.empty_texts()):
        raise PipelineError(
            f"{input}: {count} passages have a title and no text, which {to} cannot hold",
            fix="--to corpus-ids or beir",
        )
    TARGETS[to].write(table, target.resolve(), options)
    log.info("%s -> %s: %d rows, %d passages, as %s", input, output, len(table), len(table.corpus), to)
    for text in left_out(source, fields, table, to):
        log.info("left out: %s", text)
    return 0


def _check_places(source: Source, target: Path, to: str, split: str, overwrite: bool) -> list[Path]:
    """Everything that will be written or replaced, after making sure that it may be."""
    places = [target, *corpora_beside(target)] if to == "corpus-ids" else [target]
    for place in places:
        check_output(place, source.inputs, overwrite)
    if to == "beir":
        check_folder(target, ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv"))
    elif target.is_dir():
        raise PipelineError(f"{target} is a folder", fix="name a file, or --to beir")
    return places


def _read(source: Source) -> tuple[Rows, Counter[str]]:
    """The rows, and the fields of the input that they do not hold."""
    if source.layout == SDG:
        return read_sdg_rows(Path(source.given).expanduser())
    # As for validation: of BEIR a question with several answers stays one row.
    rows = read_sources(list(source.places), seed=0, kind="val")
    if rows is None:
        raise PipelineError(f"{source.given} holds no rows")
    twice = [name for name, count in Counter(rows.question_ids.to_pylist()).items() if count > 1]
    if twice:
        raise PipelineError(
            f"{source.given}: question id {twice[0]!r} stands in two files", fix="give every row an id of its own"
        )
    fields: Counter[str] = Counter()
    if source.layout in (PAIRS, IDS):
        for place in source.places:
            fields.update(_other_fields(Path(place)))
    return rows, fields


def left_out(source: Source, fields: Counter[str], table: Table, to: str) -> Iterator[str]:
    """What the target has no room for, with counts, and the input's fields that belong to no format."""
    for name, (words, count) in LOSSES.items():
        if name not in TARGETS[to].holds and (lost := count(table)):
            yield f"{lost:,} {words}: {to} has no room for them"
    if table.renamed and "passage_ids" in TARGETS[to].holds:
        yield f"{table.renamed:,} ids that stand for another text too: these passages have a new id"
    if source.layout == BEIR and (grades := _grades(Path(source.places[0]))):
        yield f"{grades:,} grades of judgements other than 0 and 1: a passage answers or not, the best stand first"
    for name, count in fields.most_common():
        yield f"{count:,} times the field {name}"


def _grades(path: Path) -> int:
    return sum(score not in (0, 1) for _, judged in judgements(path).values() for score in judged.values())


def _other_fields(path: Path) -> Counter[str]:
    """Fields of the rows of a file that `read_sources` does not read."""
    kind = kind_of_file(path)
    found: Counter[str] = Counter()
    if kind != "json":
        for _, record in records_of_table(path, kind):
            found.update(other_fields(record, str(path)))
        return found
    document = read_json(path)
    if not names_a_corpus(document):
        for _, record in records_of_json(path, document):
            found.update(other_fields(record, str(path)))
        return found
    for row in document["data"]:
        found.update(name for name in row if name not in (*REQUIRED, "known_pos_ids"))
    found.update(name for name in document if name not in ("corpus", "data"))
    for entry in as_list(document["corpus"]):
        metadata = read_json(path.parent / entry["path"] / METADATA_FILE)
        found.update(f"{name} of the corpus" for name in metadata if name not in ("corpus_id", "class"))
    return found


def _source(given: str, split: str) -> Source:
    """What is there; of a BEIR folder the judgements of the split."""
    path = Path(given).expanduser()
    if given.startswith(HUB):
        return Source(given, (given,), HUB)
    if not path.exists():
        raise PipelineError(f"{given} does not exist")
    if is_beir(path):
        return Source(given, (str(qrels_file(path, split) if path.is_dir() else path),), BEIR)
    files = find_files(path)
    return Source(given, tuple(str(file.path) for file in files), files[0].layout)


def _guessed(output: Path) -> str:
    if output.suffix not in _BY_ENDING:
        raise PipelineError(f"{output}: the ending does not say which format is meant", fix=f"--to {'|'.join(TARGETS)}")
    return _BY_ENDING[output.suffix]

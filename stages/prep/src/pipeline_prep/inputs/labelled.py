"""Questions with their passages: rows that carry texts, and rows that name the passages of a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pipeline.records.sources.corpora import Corpora
from pipeline.records.sources.corpus_ids import read_corpus_ids
from pipeline.records.sources.draft import Part
from pipeline.records.sources.files import records_of_json, records_of_table
from pipeline.records.sources.records import QUESTION, is_unanswered, other_fields, read_records
from pipeline.records.training import REQUIRED
from pipeline.run.files import read_json
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.find import IDS, InputFile
from pipeline_prep.inputs.gathered import Gathered
from pipeline_prep.inputs.metadata import plain
from pipeline_prep.questions import Converted

_BATCH = 8192


class _Row(NamedTuple):
    """A row of a question: passage ids, and where it stands."""

    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    metadata: dict[str, Any]
    where: str

    @property
    def order(self) -> tuple[Any, ...]:
        return self.positives, self.negatives, str(self.metadata)


def read_labelled(files: Iterable[InputFile], funnel: Funnel) -> Converted:
    """Passages and questions of all files; the document of a passage is the passage itself.

    So questions that share a passage stay on one side of the split. Rows that ask the same are one question with the
    passages of all of them. Every other field of a row is kept as metadata.

    Raises:
        PipelineError: a malformed row, an unknown passage, an id that stands twice.
    """
    gathered, corpora = Gathered(), Corpora(use_instructions=False)
    asked: dict[str, list[_Row]] = {}
    losses = len(funnel.rejected)
    for file in files:
        part, metadata = _by_id(file, corpora) if file.layout == IDS else _by_content(file, funnel)
        for text, row in _rows(gathered, part, metadata, funnel):
            asked.setdefault(text, []).append(row)
    for text, rows in asked.items():
        rows.sort(key=lambda row: row.order)
        right, wrong = ([key for row in rows for key in getattr(row, side)] for side in ("positives", "negatives"))
        known = {name: value for row in reversed(rows) for name, value in row.metadata.items()}
        gathered.question(text, gathered.documents_of(right), right, known, rows[0].where, wrong)
    count = sum(map(len, asked.values()))
    funnel.close("read", len(asked) + len(funnel.rejected) - losses, f"{count:,} labelled rows with text")
    funnel.close("kept", len(asked), f"{gathered.passages:,} distinct passages")
    return gathered.finish()


def _by_content(file: InputFile, funnel: Funnel) -> tuple[Part, list[dict[str, Any]]]:
    if file.kind == "json":
        unit, records = "row", iter(records_of_json(file.path, read_json(file.path)))
    else:
        unit, records = "row" if file.kind == "parquet" else "line", records_of_table(file.path, file.kind)
    metadata: list[dict[str, Any]] = []
    part = read_records(str(file.path), unit, _usable(file, unit, records, metadata, funnel), [file.path])
    return part, metadata


def _usable(
    file: InputFile, unit: str, records: Iterator[tuple[int, Any]], metadata: list[dict[str, Any]], funnel: Funnel
) -> Iterator[tuple[int, Any]]:
    """The rows that ask and answer something; the metadata of each goes to `metadata`."""
    for number, record in records:
        if isinstance(record, dict):
            where = f"{file.path}:{number}" if unit == "line" else f"{file.path}: row {number}"
            if _is_lost(record, where, funnel):
                continue
            if "pos_doc" in record:
                record.setdefault("neg_doc", [])
            metadata.append(_metadata(other_fields(record, where)))
        yield number, record


def _by_id(file: InputFile, corpora: Corpora) -> tuple[Part, list[dict[str, Any]]]:
    document = read_json(file.path)
    rows = document.get("data")
    used = {*REQUIRED, "known_pos_ids"}
    metadata = [
        _metadata({name: value for name, value in row.items() if name not in used})
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
    ]
    return read_corpus_ids(file.path, document, corpora), metadata


def _is_lost(record: dict[str, Any], where: str, funnel: Funnel) -> bool:
    """Whether a row has a blank question or no positive; the wrong type of either is an error of its reader."""
    asked = [record[name] for name in QUESTION if name in record]
    if asked and all(isinstance(item, str) and not item.strip() for item in asked):
        funnel.reject("empty question", where, "", step="kept")
    elif is_unanswered(record, where):
        funnel.reject("no positive", where, asked[0] if asked else "", step="kept")
    else:
        return False
    return True


def _metadata(fields: dict[str, Any]) -> dict[str, Any]:
    """Training files of prep keep it in an object of its own."""
    nested = fields.pop("metadata", None)
    return plain({**fields, **nested} if isinstance(nested, dict) else fields)


def _rows(gathered: Gathered, part: Part, metadata: list[dict[str, Any]], funnel: Funnel) -> Iterator[tuple[str, _Row]]:
    """Gather a part's passages, all of its corpus, and yield the question and passages of each row."""
    ids: list[str | None] = []
    for batch in part.passages.select(["text", "title"]).to_batches(_BATCH):
        texts = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        ids += [gathered.passage(text, title) for text, title in texts]
    for number, (text, fields) in enumerate(zip(part.questions.to_pylist(), metadata, strict=True)):
        text, where = text.strip(), part.place_of(number)
        right = tuple(key for item in (*part.positives[number], *part.known[number]) if (key := ids[item]))
        wrong = tuple(key for item in part.negatives[number] if (key := ids[item]))
        if right:
            yield text, _Row(right, wrong, fields, where)
        else:
            funnel.reject("no positive", where, text, "its passages are empty", step="kept")

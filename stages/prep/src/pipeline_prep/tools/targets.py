"""The formats that `convert` writes, and what each of them cannot hold."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, write_beir
from pipeline.records.passages import CORPUS_FILE, METADATA_FILE, Passage, write_corpus_table
from pipeline.records.sources.corpora import Corpora
from pipeline.run.files import atomic_open, replacing_folder, write_jsonl
from pipeline_prep.tools.materialize import CORPUS_ENDING
from pipeline_prep.tools.outputs import check_folder
from pipeline_prep.tools.table import Table
from pipeline_prep.tools.training_json import Document

CELL = 131_072
"""Most characters of a cell that readers of CSV accept (Python's `csv` among them)."""


@dataclass(frozen=True)
class Options:
    """`corpus_id` names the corpus (corpus-ids), `split` the judgements (beir)."""

    corpus_id: str
    split: str


@dataclass(frozen=True)
class Target:
    """A format: how it is written, and what of a table it has room for."""

    write: Callable[[Table, Path, Options], None]
    holds: frozenset[str]


def write_inline(table: Table, output: Path, _: Options) -> None:
    write_jsonl(output, _inline_rows(table))


def _inline_rows(table: Table) -> Iterator[dict[str, Any]]:
    for row in table.rows("text", "title"):
        yield {
            "question_id": row.question_id,
            "query": row.question,
            "pos_doc": [_without_empty_title(item) for item in row.positives],
            "neg_doc": [_without_empty_title(item) for item in row.negatives],
        }


def _without_empty_title(passage: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in passage.items() if name != "title" or value}


def write_cohere(table: Table, output: Path, _: Options) -> None:
    write_jsonl(
        output,
        (
            {
                "query": row.question,
                "relevant_passages": [item["text"] for item in row.positives],
                "hard_negatives": [item["text"] for item in row.negatives],
            }
            for row in table.rows("text")
        ),
    )


def write_columns(table: Table, output: Path, _: Options) -> None:
    """A row for each positive; the ending says which kind of file."""
    count = int(table.source.negatives.counts.max(initial=0))
    scored = table.scores() > 0
    names = ["question_id", "anchor", "positive", *(f"negative_{number}" for number in range(1, count + 1))]
    names += ["scores"] if scored else []
    rows = _column_rows(table, scored)
    if output.suffix == ".parquet":
        _write_parquet(output, names, rows)
    elif output.suffix in (".csv", ".tsv"):
        _write_cells(output, names, rows, "\t" if output.suffix == ".tsv" else ",")
    else:
        write_jsonl(output, rows)


def _column_rows(table: Table, scored: bool) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for row in table.rows("text"):
        several = len(row.positives) > 1
        for number, positive in enumerate(row.positives):
            name = f"{row.question_id}_{number}" if several else row.question_id
            if name in seen:
                raise PipelineError(f"two rows would have the id {name!r}", fix="give every row an id of its own")
            seen.add(name)
            made = {
                "question_id": name,
                "anchor": row.question,
                "positive": positive["text"],
            }
            made |= {f"negative_{place}": item["text"] for place, item in enumerate(row.negatives, 1)}
            if scored:
                made["scores"] = [item.get("score") for item in (positive, *row.negatives)]
            yield made


def _write_parquet(output: Path, names: list[str], rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = [(name, pa.list_(pa.float64()) if name == "scores" else pa.large_string()) for name in names]
    with atomic_open(output, "wb") as stream, pq.ParquetWriter(stream, pa.schema(kinds)) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == 1024:
                writer.write_table(pa.Table.from_pylist(batch, pa.schema(kinds)))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, pa.schema(kinds)))


def _write_cells(output: Path, names: list[str], rows: Iterator[dict[str, Any]], delimiter: str) -> None:
    with atomic_open(output) as stream:
        writer = csv.DictWriter(stream, names, delimiter=delimiter, restval="", lineterminator="\r\n")
        writer.writeheader()
        for row in rows:
            cells = {name: json.dumps(value) if name == "scores" else value for name, value in row.items()}
            if long := [name for name, value in cells.items() if len(value) >= CELL]:
                raise PipelineError(
                    f"{row['question_id']}: {long[0]} has {len(cells[long[0]]):,} characters, "
                    f"more than the {CELL:,} that readers of {output.suffix} accept",
                    fix=f"write {output.with_suffix('.parquet').name} or {output.with_suffix('.jsonl').name}",
                )
            writer.writerow(cells)


def write_corpus_ids(table: Table, output: Path, options: Options) -> None:
    """The corpus folder, then the file beside it: rows that are there keep their corpus until they are replaced."""
    folder, before = _turn(output)
    if same := _holds(before, table, options.corpus_id):
        folder = before
    rows = []
    for row in table.rows("id"):
        rows.append(
            {
                "question_id": row.question_id,
                "question": row.question,
                "corpus_id": options.corpus_id,
                "pos_doc": row.positives,
                "neg_doc": row.negatives,
            }
        )
        if len(row.known) > len(row.positives):
            rows[-1]["known_pos_ids"] = row.known
    if not same:
        with replacing_folder(folder) as made:
            write_corpus_table(made, table.corpus, {"corpus_id": options.corpus_id})
    Document(output, {"corpus": {"path": f"./{folder.name}"}}, rows).save(output)
    if before.exists() and not same:
        shutil.rmtree(before)


def corpora_beside(output: Path) -> tuple[Path, Path]:
    """The two places where the corpus folder of a training file may stand.

    Raises:
        PipelineError: something else has the name of one of them.
    """
    first = output.with_name(f"{output.stem}{CORPUS_ENDING}")
    folders = first, first.with_name(f"{first.name}.2")
    for folder in folders:
        check_folder(folder, (CORPUS_FILE, METADATA_FILE))
    return folders


def _turn(output: Path) -> tuple[Path, Path]:
    """Where to write the corpus, and the other place: the one that the rows which are there use."""
    first, second = corpora_beside(output)
    if not first.exists():
        return first, second
    if not second.exists():
        return second, first
    # A run was killed before it deleted one of them.
    used = Document.load(output).corpus_folders() if output.is_file() else []
    return (first, second) if second in used else (second, first)


def _holds(folder: Path, table: Table, corpus_id: str) -> bool:
    """Whether a corpus folder is as it would be written: files made from these rows use it too."""
    if not folder.exists():
        return False
    try:
        found = Corpora(use_instructions=False).folder(folder)
    except PipelineError:
        return False
    return found.id == corpus_id and found.table.select(table.corpus.column_names).equals(table.corpus)


def write_beir_folder(table: Table, output: Path, options: Options) -> None:
    """Positives are judged 1, negatives 0: rows know no grades."""
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for row in table.rows("id"):
        queries[_cell(row.question_id, "question id")] = row.question
        judged = {_cell(item["id"], "passage id"): 0 for item in row.negatives}
        qrels[row.question_id] = {_cell(item["id"], "passage id"): 1 for item in row.positives} | judged
    corpus = {
        item["id"]: Passage(item["id"], item["text"], item["title"])
        for batch in table.corpus.to_batches()
        for item in batch.to_pylist()
    }
    with replacing_folder(output) as folder:
        write_beir(folder, TestSet(output.name, corpus, queries, qrels), options.split)


def _cell(name: str, what: str) -> str:
    if any(sign in name for sign in "\t\r\n"):
        raise PipelineError(f"{what} {name!r} cannot stand in a .tsv file", fix="write corpus-ids, or change the id")
    return name


TARGETS = {
    "inline": Target(write_inline, frozenset({"question_ids", "titles", "scores", "several"})),
    "columns": Target(write_columns, frozenset({"question_ids", "scores"})),
    "corpus-ids": Target(
        write_corpus_ids,
        frozenset({"question_ids", "titles", "scores", "several", "passage_ids", "corpus", "known", "empty"}),
    ),
    "beir": Target(
        write_beir_folder, frozenset({"question_ids", "titles", "several", "passage_ids", "corpus", "empty"})
    ),
    "cohere": Target(write_cohere, frozenset({"several"})),
}
"""What `--to` may say."""

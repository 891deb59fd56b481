"""From what a configuration names to checked rows; nothing is trained on before every id and shape is known good."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import PipelineError
from pipeline.records.sources.assemble import assemble, choose
from pipeline.records.sources.beir import is_beir, read_beir_rows
from pipeline.records.sources.corpora import Corpora
from pipeline.records.sources.corpus_ids import read_corpus_ids
from pipeline.records.sources.draft import Part
from pipeline.records.sources.files import kind_of_file, names_a_corpus, records_of_json, records_of_table
from pipeline.records.sources.hub import read_hub
from pipeline.records.sources.records import ACCEPTED, read_records
from pipeline.records.sources.rows import Rows
from pipeline.records.sources.spec import Source, parse_sources
from pipeline.run.files import read_json

_SHOWN = 5
log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Needs:
    """What the loss cannot do without."""

    negatives: bool = False
    teacher: bool = False


def read_sources(
    spec: Any,
    *,
    seed: int,
    kind: Literal["train", "val"] = "train",
    max_samples: int | None = None,
    use_dataset_instruction: bool = False,
    needs: Needs | None = None,
) -> Rows | None:
    """Read and check every source of `train_data_path` or `val_data_path`.

    Args:
        spec: a path, `hf://…`, `{path: …, num_samples: …}`, or a list of these; None for no validation.
        seed: draws `num_samples` of a source and `max_samples` of all rows; drawn rows keep their order.
        use_dataset_instruction: take prefixes from the corpora's metadata; sources without are refused.
        needs: checked on the rows that are left.

    Returns:
        The rows; None only for `kind="val"`: no path, one file that does not exist or is empty, or no rows.

    Raises:
        PipelineError: an unknown or mixed format, a wrong value, an unknown id, an empty question, no rows, or rows
            without what `needs` asks for. The message names the file, the row or line, and the question.
    """
    if kind == "val" and _is_absent(spec):
        return None
    sources = parse_sources(spec)
    corpora = Corpora(use_dataset_instruction)
    parts: list[Part] = []
    counts: list[tuple[int, int]] = []
    for source in sources:
        found = _read(source, kind, corpora)
        total = sum(len(part.question_ids) for part in found)
        counts.append((total, _drawn(source, total)))
        parts += found
    name = sources[0].place if len(sources) == 1 else f"{len(sources)} data sources"
    if not sum(total for total, _ in counts):
        if kind == "val":
            return None
        raise PipelineError(f"{name}: holds no rows", fix="look at prep's summary: every question was filtered out")
    rows = assemble(name, [part for part in parts if len(part.question_ids)])
    rows = choose(rows, _draw(counts, max_samples, np.random.default_rng(seed)))
    _check_needs(rows, needs or Needs())
    return rows


def _is_absent(spec: Any) -> bool:
    if not isinstance(spec, str):
        return spec is None or spec == []
    path = Path(spec).expanduser()
    if parse_sources(spec)[0].is_hub or path.is_dir():
        return False
    return not path.is_file() or not path.stat().st_size


def _read(source: Source, kind: str, corpora: Corpora) -> list[Part]:
    if source.is_hub:
        return read_hub(source.place, corpora)
    path = Path(source.place).expanduser()
    if is_beir(path):
        return [read_beir_rows(path, kind, corpora)]
    if path.is_dir():
        found = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
        raise PipelineError(f"{path}: a folder with {found} is no known format", fix=ACCEPTED)
    if not path.is_file():
        raise PipelineError(f"{path} does not exist", fix="run prep first, or name an existing file or BEIR folder")
    file_kind = kind_of_file(path)
    if file_kind == "json":
        document = read_json(path)
        if names_a_corpus(document):
            return [read_corpus_ids(path, document, corpora)]
        records, unit = records_of_json(path, document), "row"
    else:
        records, unit = records_of_table(path, file_kind), "row" if file_kind == "parquet" else "line"
    corpora.need_no_instructions(str(path))
    return [read_records(str(path), unit, records, [path])]


def _drawn(source: Source, total: int) -> int:
    wanted = source.num_samples
    if wanted is not None and wanted > total:
        log.warning("%s has %d rows, fewer than num_samples=%d: all are used", source.place, total, wanted)
    return total if wanted is None else min(wanted, total)


def _draw(counts: list[tuple[int, int]], most: int | None, rng: np.random.Generator) -> np.ndarray:
    """Row numbers, ascending: of each source (rows, rows to draw), then of all of them together."""
    chosen, start = [], 0
    for total, wanted in counts:
        drawn = np.arange(total) if wanted == total else np.sort(rng.permutation(total)[:wanted])
        chosen.append(start + drawn)
        start += total
    numbers = np.concatenate(chosen)
    if most is not None and most < len(numbers):
        numbers = numbers[np.sort(rng.permutation(len(numbers))[:most])]
    return numbers


def _check_needs(rows: Rows, needs: Needs) -> None:
    bare = np.flatnonzero(rows.negatives.counts == 0)
    if needs.negatives and len(bare):
        shown = ", ".join(rows.question_ids[int(row)].as_py() for row in bare[:_SHOWN])
        more = "…" if len(bare) > _SHOWN else ""
        raise PipelineError(
            f"{rows.name}: {len(bare)} of {len(rows)} rows have no hard negative ({shown}{more})",
            fix="mine negatives in prep (hard_negatives_to_mine), or train with in_batch_negatives=true",
        )
    if needs.teacher:
        unknown = np.isnan(rows.positive_scores[rows.positives.offsets[:-1]])
        unknown[rows.negatives.row_numbers[np.isnan(rows.negative_scores)]] = True
        if unknown.any():
            row = int(np.argmax(unknown))
            raise PipelineError(
                f"{rows.name}: row {row} ({rows.question_ids[row]}) "
                "lacks a teacher's score of its positive or of a negative",
                fix="give every passage a score, or choose a loss that needs no teacher",
            )

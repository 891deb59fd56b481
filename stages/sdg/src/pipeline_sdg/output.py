"""The stage's files: records, usage, rejections, coverage, funnel; and the removal of files an earlier run left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from pipeline.errors import PipelineError
from pipeline.records.sdg import BATCH, HANDOFF, Record, write_batch
from pipeline.run.files import atomic_open, read_json, write_json
from pipeline.run.progress import progress
from pipeline.schemas.sdg import SdgConfig
from pipeline_sdg.artifacts import merge
from pipeline_sdg.bundles import Unit
from pipeline_sdg.calls.usage import RoleUsage, usage_report
from pipeline_sdg.chunking import coverage, sections
from pipeline_sdg.funnel import Funnel
from pipeline_sdg.generation import Rejection, Rows, rejection
from pipeline_sdg.judge import Evaluation
from pipeline_sdg.pairs import Pair
from pipeline_sdg.spool import Slots
from pipeline_sdg.styles import as_typed
from pipeline_sdg.units import Asked, Units

REJECTED, COVERAGE = "rejected.jsonl", "coverage.jsonl"
USAGE, FUNNEL, PREVIEW = "usage.json", "funnel.json", "preview.json"
_FRESH = ".fresh."
COUNTED = (
    "documents",
    "passages",
    "passages_asked_about",
    "passages_with_question",
    "windows",
    "windows_unanswered",
    "pairs_generated",
    "pairs_kept",
    "pairs_unjudged",
    "documents_without_pairs",
    "rejected",
)
"""The figures of the manifest."""


@dataclass(frozen=True)
class Made:
    """Everything the models gave, by window and by pair."""

    units: Units
    asked: Asked
    results: Slots
    rows: Rows
    labels: Slots


@dataclass
class UnitOutput:
    """One unit's record and what is noted beside it."""

    unit: Unit
    results: list[dict[str, Any]] = field(default_factory=list)
    kept: list[tuple[Pair, Evaluation]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    passages_asked_about: int = 0
    without_question: list[int] = field(default_factory=list)

    def record(self, config: SdgConfig) -> Record:
        """In the published schema; the windows' pairs stand in order."""
        unit = self.unit
        chunks = [passage.chunk for passage in unit.passages]
        return {
            "file_name": list(unit.files),
            "source_id": unit.source_id,
            "text": unit.text,
            "chunks": chunks,
            "sections_structured": sections(chunks, config.num_sections, config.bundle_strategy),
            "bundle_id": unit.bundle_id,
            "bundle_members": list(unit.members),
            "is_multi_doc": unit.is_multi_doc,
            "document_artifacts": merge([result["artifacts"] for result in self.results]),
            "qa_generation": {"pairs": [as_typed(pair) for result in self.results for pair in result["pairs"]]},
            "deduplicated_qa_pairs": [as_typed(pair) for pair, _ in self.kept],
            "qa_evaluations": {"evaluations": [evaluation for _, evaluation in self.kept]},
        }

    def coverage(self) -> dict[str, Any]:
        return {
            "file_name": list(self.unit.files),
            "passages": len(self.unit.passages),
            "passages_asked_about": self.passages_asked_about,
            "without_question": self.without_question,
        }


def outputs_of(made: Made, funnel: Funnel) -> Iterator[UnitOutput]:
    """One unit after the other, in order; `funnel` counts what goes by."""
    for number in made.asked.units:
        output = UnitOutput(made.units[number])
        for asked in made.asked.of_unit(number):
            _take_window(output, made, asked, funnel)
        funnel.unit(
            len(output.unit.passages), output.passages_asked_about, len(output.without_question), len(output.kept)
        )
        for item in output.rejections:
            funnel.rejected(item)
        yield output


def _take_window(output: UnitOutput, made: Made, number: int, funnel: Funnel) -> None:
    result, window = made.results[number], made.asked[number]
    output.results.append(result)
    output.rejections += result["rejections"]
    funnel.window(result)
    cited = []
    for row, pair in zip(made.rows.of_window(number), result["pairs"], strict=True):
        if row in made.rows.repeats:
            other = made.asked[made.rows.windows[made.rows.repeats[row]]].document
            output.rejections.append(rejection(window, "dedup", f"asks the same as a question of {other}", pair))
            continue
        done = made.labels[row]
        output.rejections += done["rejections"]
        if done["pair"] is not None:
            output.kept.append((done["pair"], done["evaluation"]))
            cited.append(done["pair"]["segment_ids"])
            funnel.kept(done["pair"], done["evaluation"])
    covered = coverage([window], cited)
    output.passages_asked_about += covered.chunks
    output.without_question += covered.without_question


def write_all(folder: Path, made: Made, config: SdgConfig, funnel: Funnel) -> list[Path]:
    """The records in batches and as one JSON Lines file with its hand-off, and the notes beside them.

    One batch is held in memory. All files are written into a folder of their own first and take their places at the
    end, after those of an earlier run went: whoever is killed meanwhile leaves no mixture of old and new records.
    """
    name = f"{config.dataset}.jsonl"
    for leftover in folder.glob(f"{_FRESH}*"):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with TemporaryDirectory(dir=folder, prefix=_FRESH) as place:
        fresh = Path(place)
        _write_records(fresh, name, made, config, funnel)
        write_json(fresh / HANDOFF, {"schema_version": 1, "dataset_name": config.dataset, "output_path": name})
        written = sorted(path.name for path in fresh.iterdir())
        for old in _records_of(folder):
            old.unlink(missing_ok=True)
        for item in written:
            os.replace(fresh / item, folder / item)
    return [folder / item for item in written]


def _write_records(folder: Path, name: str, made: Made, config: SdgConfig, funnel: Funnel) -> None:
    batch: list[Record] = []
    batches = first = 0
    with ExitStack() as stack, progress("writing records", len(made.asked.units), "records") as shown:
        lines = {path: stack.enter_context(atomic_open(folder / path)) for path in (name, REJECTED, COVERAGE)}
        for output in outputs_of(made, funnel):
            batch.append(output.record(config))
            _line(lines[name], batch[-1])
            _line(lines[COVERAGE], output.coverage())
            for item in output.rejections:
                _line(lines[REJECTED], item)
            if len(batch) == config.batch_size:
                write_batch(folder, batches, first, batch)
                batches, first, batch = batches + 1, first + len(batch), []
            shown.advance()
        if batch:
            write_batch(folder, batches, first, batch)


def _records_of(folder: Path) -> list[Path]:
    """Where an earlier run's records stand."""
    found = list(folder.glob(f"{BATCH}*.json*"))
    with suppress(PipelineError, KeyError, TypeError):  # there is none, or nobody can tell what it named
        found.append(folder / str(read_json(folder / HANDOFF)["output_path"]))
    return [path for path in found if path.parent == folder and path.is_file()]


def write_usage(folder: Path, usage: Mapping[str, RoleUsage], complete: bool) -> Path:
    return write_json(folder / USAGE, usage_report(usage, complete))


def write_funnel(folder: Path, report: dict[str, Any]) -> Path:
    return write_json(folder / FUNNEL, report)


def _line(stream: IO[str], value: Any) -> None:
    stream.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")

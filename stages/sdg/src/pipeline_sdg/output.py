"""The stage's files: records, usage, rejections; and the removal of files an earlier run left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.records.sdg import Record, write_batch
from pipeline.run.files import write_json, write_jsonl
from pipeline_sdg.artifacts import merge
from pipeline_sdg.chunking import Chunk, sections
from pipeline_sdg.documents import Document
from pipeline_sdg.generation import Rejection, WindowResult
from pipeline_sdg.judge import Evaluation
from pipeline_sdg.llm import RoleUsage
from pipeline_sdg.pairs import Pair

_SHOWN_REASONS = 5


def build_record(
    document: Document,
    chunks: list[Chunk],
    results: list[WindowResult],
    kept: list[tuple[Pair, Evaluation]],
    num_sections: int,
) -> Record:
    """One document's record in the published schema; the windows' pairs stand in order."""
    return {
        "file_name": [document.path],
        "source_id": document.path,
        "text": document.text,
        "chunks": chunks,
        "sections_structured": sections(chunks, num_sections),
        "bundle_id": "",
        "bundle_members": [],
        "is_multi_doc": False,
        "document_artifacts": merge([result.artifacts for result in results]),
        "qa_generation": {"pairs": [pair for result in results for pair in result.pairs]},
        "deduplicated_qa_pairs": [pair for pair, _ in kept],
        "qa_evaluations": {"evaluations": [evaluation for _, evaluation in kept]},
    }


def write_records(folder: Path, records: list[Record], batch_size: int) -> list[Path]:
    """Write the batches, then take away those of an earlier run that are none of them."""
    written = [
        write_batch(folder, index, first, records[first : first + batch_size])
        for index, first in enumerate(range(0, len(records), batch_size))
    ]
    for path in folder.glob("generated_batch*.json*"):
        if path not in written:
            path.unlink()
    return written


def write_usage(folder: Path, usage: dict[str, RoleUsage]) -> Path:
    roles = {role: asdict(item) for role, item in usage.items()}
    counted = [name for name, value in asdict(RoleUsage("", "")).items() if isinstance(value, int)]
    total = {name: sum(role[name] for role in roles.values()) for name in counted}
    return write_json(folder / "usage.json", {"schema_version": 1, "roles": roles, "total": total})


def write_rejections(folder: Path, rejections: Iterable[Rejection]) -> Path:
    return write_jsonl(folder / "rejected.jsonl", (asdict(item) for item in rejections))


def top_reasons(rejections: Iterable[Rejection]) -> str:
    """ "copies the source 12, is too short 3": the most frequent reasons."""
    counts = Counter(_kind(item) for item in rejections)
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common(_SHOWN_REASONS))


def _kind(item: Rejection) -> str:
    """The reason without the number of the pair or the document it names, so that like counts with like."""
    if item.role == "dedup":
        return "asks the same as another"
    head, colon, rest = item.reason.partition(": ")
    return rest if colon and head.startswith("pair ") else item.reason


def counts_of(records: list[Record], rejections: list[Rejection]) -> dict[str, Any]:
    """The figures of the manifest."""
    evaluations = [item for record in records for item in record["qa_evaluations"]["evaluations"]]
    return {
        "documents": len(records),
        "passages": sum(len(record["chunks"]) for record in records),
        "pairs_generated": sum(len(record["qa_generation"]["pairs"]) for record in records),
        "pairs_kept": len(evaluations),
        "pairs_unjudged": sum(item["overall"]["score"] is None for item in evaluations),
        "documents_without_pairs": sum(not record["deduplicated_qa_pairs"] for record in records),
        "rejected": len(rejections),
    }

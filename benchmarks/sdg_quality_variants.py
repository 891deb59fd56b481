"""The questions of one sdg run before and after each of its filters, as records that prep reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sdg import Record, read_records, write_batch
from pipeline.run.files import read_jsonl

RAW, CHECKS, DEDUP = "raw", "+ checks", "+ dedup"
Pair = dict[str, Any]


def write_variants(generated: Path, folder: Path) -> dict[str, tuple[Path, int]]:
    """Variant -> (folder of its records, how many questions they hold). The passages are the same in all of them.

    Args:
        generated: output of sdg with `chunking=none`, `qa_format=questions` and no judge.

    Raises:
        PipelineError: a document is more than one passage, or there is no ledger of rejections.
    """
    records = [record for _, record in read_records(generated)]
    rejected = rejected_questions(generated / "rejected.jsonl")
    found: dict[str, list[list[Pair]]] = {RAW: [], CHECKS: [], DEDUP: []}
    for record in records:
        if len(record["chunks"]) != 1:
            raise PipelineError(
                f"{generated}: {record['file_name'][0]} is {len(record['chunks'])} passages, so nothing says which of "
                "them a rejected question is about",
                fix="generate with chunking=none",
            )
        checked = record["qa_generation"]["pairs"]
        written = [_pair(question, record) for question in rejected.get(record["file_name"][0], [])]
        found[RAW].append([*checked, *written])
        found[CHECKS].append(checked)
        found[DEDUP].append(record["deduplicated_qa_pairs"])
    return {
        name: (_write(folder / name.strip("+ "), records, pairs), sum(map(len, pairs))) for name, pairs in found.items()
    }


def rejected_questions(ledger: Path) -> dict[str, list[str]]:
    """Document -> the questions that the stage's checks refused. An answer that could not be parsed has none."""
    found: dict[str, list[str]] = {}
    for document, question in _refused(ledger):
        found.setdefault(document, []).append(question)
    return found


def _refused(ledger: Path) -> Iterator[tuple[str, str]]:
    for _, line in read_jsonl(ledger):
        if line["role"] == "qa_generation" and isinstance(line["item"], str) and line["item"]:
            yield line["document"], line["item"]


def _pair(question: str, record: Record) -> Pair:
    """The ledger names neither the sentence nor the passage: the document's only passage stands for both."""
    chunk = record["chunks"][0]
    return {
        "question": question,
        "answer": chunk["text"],
        "question_complexity": 1,
        "query_type": "contextual",
        "reasoning_type": "factual",
        "segment_ids": [chunk["chunk_id"]],
        "hop_count": 1,
        "hop_contexts": [],
    }


def _write(folder: Path, records: list[Record], pairs: list[list[Pair]]) -> Path:
    rows = [
        {**record, "deduplicated_qa_pairs": mine, "qa_evaluations": None}
        for record, mine in zip(records, pairs, strict=True)
    ]
    written = write_batch(folder, 0, 0, rows)
    for path in folder.iterdir():
        if path != written:  # of an earlier command over another number of documents
            path.unlink()
    return folder

"""`pipeline data unroll`: a training file with one row for each positive."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sources.check import as_list
from pipeline_prep.tools.outputs import check_output
from pipeline_prep.tools.training_json import Document

log = logging.getLogger("pipeline")


def command(input: str, output: str | None, suffix: str, overwrite: bool) -> int:
    source = Path(input)
    document = Document.load(source)
    if "/" in suffix or "\0" in suffix:
        raise PipelineError(f"--suffix {suffix!r} is no part of a file's name", fix="use --output for another folder")
    target = Path(output) if output else source.with_name(f"{source.stem}{suffix}{source.suffix}")
    checked = check_output(target, [source], overwrite)
    unrolled, removed = unroll(document)
    unrolled.save(checked)
    log.info("%s: %d rows -> %s: %d rows of one positive", source, len(document.rows), target, len(unrolled.rows))
    if removed:
        log.info("left out: %d negatives that are known positives of their question", removed)
    return 0


def unroll(document: Document) -> tuple[Document, int]:
    """The rows in the form that `pipeline_prep.rows.unroll` gives, and how many negatives were left out.

    A row with one positive keeps its id; the others become `<id>_0`, `<id>_1`, …. `original_question_id` names the row
    they come from, `known_pos_ids` every positive of that question in the whole file. Negatives among these are left
    out. All other fields stay. As in prep's own files the key `mining` goes: it describes the file that was unrolled.

    Raises:
        PipelineError: a row without positives, or two rows that have or would get one id.
    """
    answers = _answers(document)
    rows: list[dict[str, Any]] = []
    removed = 0
    for number, row in enumerate(document.rows):
        known = answers[document.question_of(number)]
        negatives = [
            item
            for item, name in zip(as_list(row["neg_doc"]), document.passages(number, "neg_doc"), strict=True)
            if name not in known
        ]
        removed += len(as_list(row["neg_doc"])) - len(negatives)
        rows += _one_for_each_positive(document, number, negatives, list(known))
    _check_ids(document.path, rows)
    top = {name: value for name, value in document.top.items() if name != "mining"}
    return Document(document.path, top, rows), removed


def _answers(document: Document) -> dict[tuple[str, str], dict[str, None]]:
    """Question -> its answers in order: also those that a sibling row alone knows."""
    answers: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for number in range(len(document.rows)):
        answers[document.question_of(number)].update(dict.fromkeys(document.known(number)))
    return answers


def _one_for_each_positive(
    document: Document, number: int, negatives: list[Any], known: list[str]
) -> list[dict[str, Any]]:
    row = document.rows[number]
    positives = dict(zip(document.passages(number, "pos_doc"), as_list(row["pos_doc"]), strict=True))
    if not positives:
        raise PipelineError(f"{document.where(number)} has no positive in pos_doc", fix="leave the row out")
    name, original = document.id_of(number), document.question_of(number)[1]
    return [
        {
            **row,
            "question_id": f"{name}_{place}" if len(positives) > 1 else name,
            "pos_doc": [positive],
            "neg_doc": negatives,
            "original_question_id": original,
            "known_pos_ids": known,
        }
        for place, positive in enumerate(positives.values())
    ]


def _check_ids(path: Path, rows: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for row in rows:
        name = str(row["question_id"])
        if name in seen:
            raise PipelineError(f"{path}: two rows would have the id {name!r}", fix="give every row an id of its own")
        seen.add(name)

"""Questions as training rows, rows as a task of mining, and rows as the one-positive form that training reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.records.sources.ragged import Ragged
from pipeline.records.training import TrainingRow
from pipeline_prep.funnel import Funnel
from pipeline_prep.mining.task import Mined, MiningTask
from pipeline_prep.questions import Question

if TYPE_CHECKING:
    import pyarrow as pa


def training_rows(
    questions: Iterable[Question], corpus_id: str, max_pos_docs: int, excess: str, funnel: Funnel
) -> list[TrainingRow]:
    """One row for each question, with the negatives that its input brought.

    A row keeps its first `max_pos_docs` positives. Those beyond stay in `known_pos_ids`: they are right answers, and
    must never become negatives. With `excess` "drop" such a question is dropped whole.
    """
    rows = []
    for question in questions:
        if excess == "drop" and len(question.positives) > max_pos_docs:
            detail = f"{len(question.positives)} > {max_pos_docs}"
            funnel.reject("more than max_pos_docs positives", question.where, question.text, detail)
            continue
        extra = {"known_pos_ids": list(question.positives), "metadata": question.metadata}
        positives, negatives = list(question.positives[:max_pos_docs]), list(question.negatives)
        rows.append(TrainingRow(question.id, question.text, corpus_id, positives, negatives, extra=extra))
    return rows


def mining_task(
    rows: Sequence[TrainingRow],
    corpus: pa.Table,
    number: dict[str, int],
    hidden: Iterable[str] = (),
    apart: Iterable[str] = (),
) -> MiningTask:
    """The rows over a corpus; `number` says in which row of it a passage stands."""
    return MiningTask(
        question_ids=[row.question_id for row in rows],
        questions=[row.question for row in rows],
        answers=[answers_of(row.extra) for row in rows],
        corpus=corpus,
        positives=_numbers([row.positives for row in rows], number),
        known=_numbers([row.known_positives for row in rows], number, ascending=True),
        given=_numbers([row.negatives for row in rows], number),
        hidden=np.array(sorted(number[key] for key in hidden if key in number), np.int64),
        apart=np.array(sorted(number[key] for key in apart if key in number), np.int64),
    )


def fill(rows: Sequence[TrainingRow], task: MiningTask, mined: Mined) -> None:
    """Write what was mined into the rows: negatives, scores, and positives that rescoring found."""
    ids = task.corpus["id"]
    borders = task.positives.offsets
    for number, row in enumerate(rows):
        scores = mined.positive_scores[borders[number] : borders[number + 1]].tolist()
        row.positive_scores = dict(zip(row.positives, scores, strict=True))
        span = slice(mined.negatives.offsets[number], mined.negatives.offsets[number + 1])
        row.negatives = [ids[int(item)].as_py() for item in mined.negatives.values[span]]
        row.negative_scores = dict(zip(row.negatives, mined.scores[span].tolist(), strict=True))
        found = [ids[int(item)].as_py() for item in mined.promoted[number]]
        row.positives = [*row.positives, *found]
        span = slice(mined.promoted.offsets[number], mined.promoted.offsets[number + 1])
        row.positive_scores |= dict(zip(found, mined.promoted_scores[span].tolist(), strict=True))
        if found:
            row.extra["known_pos_ids"] = list(dict.fromkeys([*row.extra.get("known_pos_ids", ()), *row.positives]))


def unroll(rows: Iterable[TrainingRow]) -> list[TrainingRow]:
    """One row for each positive, with the question's negatives and its lineage.

    A row with one positive keeps its id; the others become `<id>_0`, `<id>_1`, … . `original_question_id` names the row
    they come from and `known_pos_ids` all its positives, for masking in a batch and for mining again.
    """
    unrolled = []
    for row in rows:
        several = len(row.positives) > 1
        for number, positive in enumerate(row.positives):
            unrolled.append(
                replace(
                    row,
                    question_id=f"{row.question_id}_{number}" if several else row.question_id,
                    positives=[positive],
                    extra={"original_question_id": row.question_id, **row.extra},
                )
            )
    return unrolled


def answers_of(row: Mapping[str, Any]) -> list[str]:
    """The answers that a row's own fields or its `metadata` tell: `answer`, and `answers` of merged questions."""
    metadata = row.get("metadata")
    told = metadata if isinstance(metadata, dict) else row
    several = told.get("answers")
    found = [told.get("answer"), *(several if isinstance(several, list) else [])]
    return list(dict.fromkeys(item for item in found if isinstance(item, str) and item.strip()))


def _numbers(rows: Sequence[Iterable[str]], number: dict[str, int], ascending: bool = False) -> Ragged:
    """Passages by number; those that the corpus does not hold are left out, they cannot be met."""
    found = [[number[key] for key in row if key in number] for row in rows]
    found = [sorted(set(row)) if ascending else row for row in found]
    return Ragged.of_rows(found)

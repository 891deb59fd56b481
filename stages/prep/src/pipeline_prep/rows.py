"""Questions as training rows, and rows as the one-positive form that training reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipeline.records.training import TrainingRow
from pipeline_prep.questions import Question


def training_rows(questions: Iterable[Question], corpus_id: str, max_pos_docs: int) -> list[TrainingRow]:
    """One row for each question, without negatives yet.

    A row keeps its first `max_pos_docs` positives. Those beyond stay in `known_pos_ids`: they are right answers, and
    must never become negatives.
    """
    return [
        TrainingRow(
            question.id,
            question.text,
            corpus_id,
            list(question.positives[:max_pos_docs]),
            [],
            extra={"known_pos_ids": list(question.positives), "metadata": question.metadata},
        )
        for question in questions
    ]


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

"""Identical questions: one of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline_prep.assign import SPLITS
from pipeline_prep.funnel import Funnel
from pipeline_prep.questions import Question


def merge_identical(
    questions: Sequence[Question], split_of: Mapping[str, str], funnel: Funnel
) -> dict[str, list[Question]]:
    """The questions of each split, one for each distinct text, with the positives of all its documents.

    Whoever asks such a question may be served by any of these passages, so keeping them apart would call right answers
    wrong. Where the documents fell into different splits the question is dropped from all: it would either stand on
    both sides or count an answer as wrong. Joining the documents instead would let a single vague question tie a whole
    corpus together.

    The metadata of a merged question are those of the first, with all its documents in `file_name` and, where the
    answers differ, all of them in `answers`.
    """
    same: dict[str, list[Question]] = {}
    for question in questions:
        same.setdefault(question.key, []).append(question)
    splits: dict[str, list[Question]] = {name: [] for name in SPLITS}
    for group in same.values():
        sides = sorted({split_of[question.documents[0]] for question in group})
        if len(sides) > 1:
            for question in group:
                funnel.reject("asked in two splits", question.where, question.text, " and ".join(sides))
            continue
        for question in group[1:]:
            funnel.reject("identical question, merged", question.where, question.text, f"into {group[0].id}")
        splits[sides[0]].append(_merged(group))
    return splits


def _merged(group: list[Question]) -> Question:
    if len(group) == 1:
        return group[0]
    documents = tuple(dict.fromkeys(name for question in group for name in question.documents))
    positives = tuple(dict.fromkeys(key for question in group for key in question.positives))
    # What answers one of them answers all.
    negatives = dict.fromkeys(key for question in group for key in question.negatives if key not in positives)
    metadata = {**group[0].metadata, "file_name": list(documents)}
    answers = list(dict.fromkeys(answer for question in group for answer in _answers(question)))
    if len(answers) > 1:
        metadata["answers"] = answers
    return replace(group[0], documents=documents, positives=positives, negatives=tuple(negatives), metadata=metadata)


def _answers(question: Question) -> list[str]:
    several = question.metadata.get("answers")
    found = [question.metadata.get("answer"), *(several if isinstance(several, list) else ())]
    return [answer for answer in found if isinstance(answer, str) and answer.strip()]

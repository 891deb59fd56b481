"""A training file that exists already (`train_input_file`): nothing is converted or split, only mined and unrolled."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, read_corpus
from pipeline.records.training import TrainingFile, TrainingRow
from pipeline.schemas.prep import PrepConfig
from pipeline_prep.frozen import file_names, protected_by_frozen, read_frozen
from pipeline_prep.funnel import Funnel
from pipeline_prep.leaks import Barred, Protected, barred_by, without_repeats, without_test_content
from pipeline_prep.questions import Converted, Question, question_key
from pipeline_prep.split import Splits
from pipeline_prep.union_find import UnionFind


def read_train_file(config: PrepConfig, funnel: Funnel) -> tuple[Converted, Splits, list[TrainingRow]]:
    """Its corpus, its rows with every field they have, and the frozen test set if there is one.

    Rows of one question know each other's positives (`known_pos_ids`). Rows that a frozen test set forbids are taken
    out.

    Raises:
        PipelineError: the file or its corpus is malformed, an id stands twice, or a row names an unknown passage.
    """
    path = Path(config.train_input_file or "").expanduser()
    file = TrainingFile.load(path)
    passages = read_corpus(file.corpus_path)
    _check(path, file.rows, passages)
    funnel.close("read", len(file.rows), f"{path}")
    rows = _knowing_siblings(file.rows)
    barred, frozen = Barred(frozenset(), frozenset(), frozenset()), None
    if config.frozen_eval:
        frozen = read_frozen(config.frozen_eval)
        asked = [_question(path, number, row) for number, row in enumerate(rows)]
        kept, barred = _without_frozen(asked, passages, protected_by_frozen(frozen), config, funnel)
        names = {question.id for question in kept}
        rows = [row for row in rows if row.question_id in names]
        funnel.close("split", len(rows), f"frozen test set: {len(frozen.queries):,}")
    if not rows:
        raise PipelineError(f"{path}: no row is left to train on", fix="use a file that does not repeat frozen_eval")
    none: dict[str, list[Question]] = {"train": [], "val": [], "test": []}
    return Converted(passages, [], []), Splits(none, barred.answers, {}, frozen, barred.passages), rows


def _knowing_siblings(rows: list[TrainingRow]) -> list[TrainingRow]:
    """The rows, each positive once, with every answer of their question in `known_pos_ids`.

    Rows of one question have one `original_question_id`, or the same text: what answers one of them answers all.
    """
    same = UnionFind[tuple[str, str]]()
    names = [_names(row) for row in rows]
    for either in names:
        same.join(either)
    answers: dict[tuple[str, str], dict[str, None]] = {}
    for row, either in zip(rows, names, strict=True):
        known = [*row.positives, *sorted(row.known_positives)]
        answers.setdefault(same.root(either[0]), {}).update(dict.fromkeys(known))
    told = []
    for row, either in zip(rows, names, strict=True):
        known = list(answers[same.root(either[0])])
        positives = list(dict.fromkeys(row.positives))
        told.append(replace(row, positives=positives, extra={**row.extra, "known_pos_ids": known}))
    return told


def _names(row: TrainingRow) -> list[tuple[str, str]]:
    """What the rows of one question have in common: its text, and the id of the row that they were made from."""
    return [("text", question_key(row.question)), ("id", str(row.extra.get("original_question_id", row.question_id)))]


def _without_frozen(
    asked: list[Question], passages: dict[str, Passage], protected: Protected, config: PrepConfig, funnel: Funnel
) -> tuple[list[Question], Barred]:
    """The questions that the test set allows. A corpus folder names no documents: the questions on a passage do."""
    documents: dict[str, set[str]] = {}
    for question in asked:
        for key in question.positives:
            documents.setdefault(key, set()).update(question.documents)
    named = {key: replace(item, documents=tuple(sorted(documents.get(key, ())))) for key, item in passages.items()}
    every = {name for question in asked for name in question.documents}
    barred = barred_by(protected, Converted(named, asked, []), every, [], config.near_duplicate_threshold)
    kept = without_test_content(asked, barred, funnel)
    return without_repeats(kept, protected.questions, "test", config.near_duplicate_questions, funnel), barred


def _check(path: Path, rows: list[TrainingRow], passages: dict) -> None:
    twice = [name for name, count in Counter(row.question_id for row in rows).items() if count > 1]
    if twice:
        shown = ", ".join(twice[:5])
        raise PipelineError(f"{path}: {len(twice)} question ids stand twice: {shown}", fix="give every row its own id")
    for number, row in enumerate(rows):
        unknown = [key for key in [*row.positives, *row.negatives] if key not in passages]
        if unknown:
            raise PipelineError(
                f"{path}: row {number} ({row.question_id}) names passage {unknown[0]!r}, which the corpus lacks",
                fix="use the rows and the corpus of the same data set",
            )


def _question(path: Path, number: int, row: TrainingRow) -> Question:
    """The row as the leak rules look at it."""
    documents = tuple(file_names(row.extra.get("metadata")))
    positives = tuple(sorted(row.known_positives))
    return Question(row.question_id, row.question, documents, positives, {}, f"{path}: row {number}")

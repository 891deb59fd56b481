"""A training file that exists already (`train_input_file`): nothing is converted or split, only mined and unrolled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.passages import read_corpus
from pipeline.records.training import TrainingFile, TrainingRow
from pipeline.schemas.prep import PrepConfig
from pipeline_prep.frozen import protected_by_frozen, read_frozen
from pipeline_prep.funnel import Funnel
from pipeline_prep.leaks import answers_of_test, without_repeats, without_test_content
from pipeline_prep.questions import Converted, Question
from pipeline_prep.split import Splits


def read_train_file(config: PrepConfig, funnel: Funnel) -> tuple[Converted, Splits, list[TrainingRow]]:
    """Its corpus, its rows with every field they have, and the frozen test set if there is one.

    Rows that a frozen test set forbids are taken out.

    Raises:
        PipelineError: the file or its corpus is malformed, an id stands twice, or a row names an unknown passage.
    """
    path = Path(config.train_input_file or "").expanduser()
    file = TrainingFile.load(path)
    passages = read_corpus(file.corpus_path)
    _check(path, file.rows, passages)
    funnel.close("read", len(file.rows), f"{path}")
    converted = Converted(passages, [], [])
    rows, hidden, frozen = file.rows, frozenset(), None
    if config.frozen_eval:
        frozen = read_frozen(config.frozen_eval)
        protected = protected_by_frozen(frozen)
        hidden = answers_of_test(passages.values(), protected, config.near_duplicate_threshold)
        asked = [_question(path, number, row) for number, row in enumerate(rows)]
        kept = without_test_content(asked, set(protected.documents), hidden, funnel)
        kept = without_repeats(kept, protected.questions, "test", config.near_duplicate_questions, funnel)
        names = {question.id for question in kept}
        rows = [row for row in rows if row.question_id in names]
        funnel.close("split", len(rows), f"frozen test set: {len(frozen.queries):,}")
    if not rows:
        raise PipelineError(f"{path}: no row is left to train on", fix="use a file that does not repeat frozen_eval")
    return converted, Splits({"train": [], "val": [], "test": []}, hidden, {}, frozen), rows


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
    metadata = row.extra.get("metadata")
    named = metadata.get("file_name") if isinstance(metadata, dict) else None
    documents = tuple(named) if isinstance(named, list) else ()
    positives = tuple(sorted(row.known_positives))
    return Question(row.question_id, row.question, documents, positives, {}, f"{path}: row {number}")

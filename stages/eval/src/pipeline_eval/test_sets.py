"""The questions the systems are measured on: the run's own held-out set, and human-style sets beside it."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, question_test_set, read_beir
from pipeline.records.passages import Passage
from pipeline.run.files import read_jsonl
from pipeline_eval.statistics import FEW_QUERIES

logger = logging.getLogger("pipeline")


def load_test_sets(
    folder: Path, name: str, question_sets: dict[str, Path], corpus_dir: Path, question_sets_corpus: Path | None
) -> list[TestSet]:
    """The main test set first, then every question set that belongs to this run's documents.

    Raises:
        PipelineError: a file is malformed, the main set holds no question, or a passage a question is about is gone.
    """
    main = read_beir(folder, name=name)
    if not main.queries:
        raise PipelineError(
            f"{folder} holds no judged question", fix="more documents, or a larger test_ratio in prep, give a test set"
        )
    sets = [main]
    if question_sets_corpus and corpus_dir.resolve() != question_sets_corpus.resolve():
        if question_sets:
            logger.info(
                f"test sets {', '.join(question_sets)} are skipped: they were written for the documents in "
                f"{question_sets_corpus}, this run reads {corpus_dir}"
            )
        question_sets = {}
    for set_name, path in question_sets.items():
        reason = _why_not(path, main.corpus) if question_sets_corpus else None
        if reason:
            logger.warning(f"test set {set_name} is skipped: {reason}")
        else:
            sets.append(question_test_set(path, main.corpus, set_name))
    for item in sets:
        logger.info(f"test set {item.name}: {len(item.queries)} questions, {len(item.corpus)} passages")
        if len(item.queries) < FEW_QUERIES:
            logger.warning(f"test set {item.name} has fewer than {FEW_QUERIES} questions: only large differences show")
    return sets


def _why_not(path: Path, corpus: dict[str, Passage]) -> str | None:
    """Why a set does not belong to these passages although the document folder has the right name, or None.

    A set counts whole or not at all: over a part of its documents it would be another, easier test.
    """
    there = {document for passage in corpus.values() for document in passage.documents}
    asked = [row.get("doc") for _, row in read_jsonl(path) if isinstance(row, dict)]
    missing = [document for document in asked if document not in there]
    if not missing:
        return None
    if len(missing) == len(asked):
        return "none of its documents is among the passages of this run"
    return (
        f"{len(missing)} of its {len(asked)} questions are about documents this run did not read, "
        f"such as {missing[0]} (num_files?)"
    )

"""The questions the systems are measured on: the run's own held-out set, human-style sets beside it, and any others."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, question_test_set, read_beir
from pipeline.records.passages import Passage
from pipeline.run.files import read_jsonl
from pipeline.schemas.eval import EvalConfig
from pipeline_eval.statistics import FEW_QUERIES

logger = logging.getLogger("pipeline")


MAIN, HUMAN, FURTHER, GUARD = "main test set", "human-style questions", "further test set", "guard set"


def kind_of(config: EvalConfig, name: str) -> str:
    """What a test set is for, by its name."""
    kinds = {HUMAN: config.question_sets, FURTHER: config.test_sets, GUARD: config.guard_sets}
    return next((kind for kind, names in kinds.items() if name in names), MAIN)


def load_test_sets(config: EvalConfig) -> list[TestSet]:
    """The main test set, every question set that belongs to this run's documents, then the sets with their own corpus.

    Raises:
        PipelineError: a file is malformed, a set holds no question, or a passage a question is about is gone.
    """
    main = _beir(config.eval_data_path, config.eval_data_name)
    sets = [main, *_question_sets(config, main.corpus)]
    sets += [_beir(path, name) for name, path in (config.test_sets | config.guard_sets).items()]
    for item in sets:
        logger.info(f"test set {item.name}: {len(item.queries)} questions, {len(item.corpus)} passages")
        if len(item.queries) < FEW_QUERIES:
            logger.warning(f"test set {item.name} has fewer than {FEW_QUERIES} questions: only large differences show")
    return sets


def _beir(path: str, name: str) -> TestSet:
    found = read_beir(Path(path), name=name)
    if not found.queries:
        raise PipelineError(
            f"{path} holds no judged question", fix="more documents, or a larger test_ratio in prep, give a test set"
        )
    return found


def _question_sets(config: EvalConfig, corpus: dict[str, Passage]) -> list[TestSet]:
    """The human-style sets over this run's passages."""
    sets = {name: Path(path).expanduser() for name, path in config.question_sets.items()}
    own_corpus = config.question_sets_corpus
    if own_corpus and Path(config.corpus_dir).resolve() != Path(own_corpus).resolve():
        if sets:
            logger.info(
                f"test sets {', '.join(sets)} are skipped: they were written for the documents in {own_corpus}, this "
                f"run reads {config.corpus_dir}"
            )
        return []
    found = []
    for name, path in sets.items():
        reason = _why_not(path, corpus) if own_corpus else None
        if reason:
            logger.warning(f"test set {name} is skipped: {reason}")
        else:
            found.append(question_test_set(path, corpus, name))
    return found


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

"""Training files: `{"corpus": {"path": …}, "data": [row, …]}` with passages by id."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.sources.check import Ref, as_id, as_json, as_object, as_text, kind_of, references
from pipeline.run.files import read_json, write_json

REQUIRED = ("question_id", "question", "corpus_id", "pos_doc", "neg_doc")


@dataclass
class TrainingRow:
    """One question with its passages, by id. `extra` keeps every other field of the row (lineage, types, scores)."""

    question_id: str
    question: str
    corpus_id: str
    positives: list[str]
    negatives: list[str]
    positive_scores: dict[str, float] = field(default_factory=dict)
    negative_scores: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def known_positives(self) -> set[str]:
        """Every passage known to answer the question, also those of its sibling rows."""
        return {*self.positives, *self.extra.get("known_pos_ids", ())}

    def to_json(self) -> dict[str, Any]:
        return {
            "question_id": self.question_id,
            "question": self.question,
            "corpus_id": self.corpus_id,
            "pos_doc": [_reference(item, self.positive_scores) for item in self.positives],
            "neg_doc": [_reference(item, self.negative_scores) for item in self.negatives],
            **self.extra,
        }


@dataclass
class TrainingFile:
    """Rows and the corpus folder their ids refer to."""

    corpus_path: Path
    rows: list[TrainingRow]
    extra: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path, corpus_path: str = "./corpus/") -> Path:
        """Write the file; `corpus_path` is relative to the file's own folder."""
        document = {"corpus": {"path": corpus_path}, **self.extra, "data": [row.to_json() for row in self.rows]}
        return write_json(path, document, indent=1)

    @classmethod
    def load(cls, path: Path) -> TrainingFile:
        """Read and check a training file.

        Raises:
            PipelineError: names the file, the row and the missing or wrong field.
        """
        document = read_json(path)
        if not isinstance(document, dict) or "corpus" not in document or not isinstance(document.get("data"), list):
            raise PipelineError(
                f"{path}: needs the keys `corpus` and `data`, a list of rows", fix="run prep, or see docs/prep.md"
            )
        corpus = document["corpus"]
        corpus = corpus[0] if isinstance(corpus, list) and len(corpus) == 1 else corpus
        if not isinstance(corpus, dict) or not isinstance(corpus.get("path"), str) or "\0" in corpus["path"]:
            raise PipelineError(f'{path}: `corpus` must be one {{"path": FOLDER}}')
        rows = [_row(path, number, item) for number, item in enumerate(document["data"])]
        extra = {name: value for name, value in document.items() if name not in ("corpus", "data")}
        as_json(extra, str(path))
        return cls((path.parent / corpus["path"]).resolve(), rows, extra)


def _row(path: Path, number: int, item: Any) -> TrainingRow:
    where = f"{path}: row {number}"
    row = as_object(item, where)
    if missing := [name for name in REQUIRED if name not in row]:
        raise PipelineError(f"{where} ({row.get('question_id', '?')!s:.40}) lacks {', '.join(missing)}")
    question_id = as_id(row["question_id"], where, "question_id")
    where = f"{where} ({question_id})"
    positives, negatives = _references(row, "pos_doc", where), _references(row, "neg_doc", where)
    if not positives:
        raise PipelineError(f"{where} has no positive in pos_doc")
    extra = {name: value for name, value in row.items() if name not in REQUIRED}
    if "known_pos_ids" in row:
        extra["known_pos_ids"] = _ids(_references(row, "known_pos_ids", where))
    return TrainingRow(
        question_id,
        as_text(row["question"], where, "question"),
        as_id(row["corpus_id"], where, "corpus_id"),
        _ids(positives),
        _ids(negatives),
        _scores(positives),
        _scores(negatives),
        as_json(extra, where),
    )


def _references(row: dict[str, Any], field: str, where: str) -> list[Ref]:
    if not isinstance(row[field], list | None):
        raise PipelineError(f"{where}: {field} must be a list, found {kind_of(row[field])}")
    return references(row[field], where, field)


def _ids(items: list[Ref]) -> list[str]:
    return [name for name, _ in items]


def _scores(items: list[Ref]) -> dict[str, float]:
    return {name: score for name, score in items if not math.isnan(score)}


def _reference(item: str, scores: dict[str, float]) -> dict[str, Any]:
    return {"id": item, "score": round(scores[item], 6)} if item in scores else {"id": item}

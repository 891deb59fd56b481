"""Training files: `{"corpus": {"path": …}, "data": [row, …]}` with passages by id."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
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
        if not isinstance(document, dict) or "corpus" not in document or "data" not in document:
            raise PipelineError(f"{path}: needs the keys `corpus` and `data`", fix="run prep, or see docs/prep.md")
        corpus = document["corpus"]
        corpus = corpus[0] if isinstance(corpus, list) and len(corpus) == 1 else corpus
        if not isinstance(corpus, dict) or "path" not in corpus:
            raise PipelineError(f'{path}: `corpus` must be one {{"path": FOLDER}}')
        rows = [_row(path, number, item) for number, item in enumerate(document["data"])]
        extra = {name: value for name, value in document.items() if name not in ("corpus", "data")}
        return cls((path.parent / corpus["path"]).resolve(), rows, extra)


def _row(path: Path, number: int, item: Any) -> TrainingRow:
    if not isinstance(item, dict):
        raise PipelineError(f"{path}: row {number} must be an object, found {type(item).__name__}")
    missing = [name for name in REQUIRED if name not in item]
    if missing:
        raise PipelineError(f"{path}: row {number} ({item.get('question_id', '?')}) lacks {', '.join(missing)}")
    positives, positive_scores = _references(item["pos_doc"])
    negatives, negative_scores = _references(item["neg_doc"])
    if not positives:
        raise PipelineError(f"{path}: row {number} ({item['question_id']}) has no positive in pos_doc")
    extra = {name: value for name, value in item.items() if name not in REQUIRED}
    return TrainingRow(
        str(item["question_id"]),
        str(item["question"]),
        str(item["corpus_id"]),
        positives,
        negatives,
        positive_scores,
        negative_scores,
        extra,
    )


def _references(items: list[Any]) -> tuple[list[str], dict[str, float]]:
    ids, scores = [], {}
    for item in items or []:
        reference = str(item["id"] if isinstance(item, dict) else item)
        ids.append(reference)
        if isinstance(item, dict) and item.get("score") is not None:
            scores[reference] = float(item["score"])
    return ids, scores


def _reference(item: str, scores: dict[str, float]) -> dict[str, Any]:
    return {"id": item, "score": round(scores[item], 6)} if item in scores else {"id": item}

"""The judgements of a test set, for comparing a training file with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.records.sources.beir import identified, judgements

TRAINING = ("train",)
"""Judgements under this name are the training's own: they cannot leak."""


def folded(question: str) -> str:
    """Questions that differ in case and spacing alone are one."""
    return " ".join(question.casefold().split())


@dataclass(frozen=True)
class Judgements:
    """Which passages answer which question.

    Attributes:
        relevant: question -> passages judged above 0. Questions are told by their folded text where the set has
            `queries.jsonl`, else by their ids.
        by_text: which of the two.
        held_out: whether the set is for testing: nothing in it may be trained on.
    """

    relevant: dict[str, set[str]]
    by_text: bool
    held_out: bool

    @classmethod
    def read(cls, place: Path) -> Judgements:
        """Read a BEIR folder (its `qrels/test.tsv`) or one file of judgements.

        Raises:
            PipelineError: no judgements there, or a malformed line.
        """
        path = qrels_file(place, "test") if place.is_dir() else place
        queries = path.parent.parent / "queries.jsonl"
        texts = _texts(queries) if path.parent.name == "qrels" and queries.is_file() else None
        relevant: dict[str, set[str]] = {}
        for question, (_, scores) in judgements(path, texts).items():
            answers = relevant.setdefault(question if texts is None else texts[question], set())
            answers.update(name for name, score in scores.items() if score > 0)
        if not relevant:
            raise PipelineError(f"{path} holds no judgements", fix="name a file of query-id<TAB>corpus-id<TAB>score")
        return cls(relevant, texts is not None, path.stem not in TRAINING)

    def of(self, question_ids: tuple[str, ...], question: str) -> set[str] | None:
        """The answers of a question that is judged, else None."""
        keys = (folded(question),) if self.by_text else question_ids
        return next((self.relevant[key] for key in keys if key in self.relevant), None)

    def passages(self) -> set[str]:
        """Every passage that answers some question."""
        return set().union(*self.relevant.values())


def qrels_file(folder: Path, split: str) -> Path:
    """The judgements of a split.

    Raises:
        PipelineError: the folder has none; names those that it has.
    """
    path = folder / "qrels" / f"{split}.tsv"
    if not path.is_file():
        found = ", ".join(sorted(item.name for item in path.parent.glob("*.tsv"))) or "nothing"
        raise PipelineError(f"{path} does not exist", fix=f"the folder qrels holds {found}: name the split or the file")
    return path


def _texts(path: Path) -> dict[str, str]:
    return {name: folded(row["text"]) for _, name, row in identified(path, "question")}

"""What every input becomes: passages, and questions with the passages that answer them."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from pipeline.records.passages import Passage


@dataclass(frozen=True)
class Question:
    """A question, the documents it was written from and every passage that answers it (ids, best known first).

    `negatives` are passages that the input itself names as wrong. `where` says where it stands, for messages.
    """

    id: str
    text: str
    documents: tuple[str, ...]
    positives: tuple[str, ...]
    metadata: dict[str, Any]
    where: str
    negatives: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return question_key(self.text)


@dataclass(frozen=True)
class Converted:
    """Passages by id, the questions left, and sets of documents that must stay together.

    `given` names the split ("train", "val" or "test") of the questions whose input says it (qrels of a BEIR folder).
    """

    passages: dict[str, Passage]
    questions: list[Question]
    ties: list[tuple[str, ...]]
    given: dict[str, str] = field(default_factory=dict)


def question_key(text: str) -> str:
    """Equal for questions that differ in case, spacing, Unicode form or the mark at the end alone."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).rstrip("?!. ") or folded


def question_id(text: str, documents: tuple[str, ...]) -> str:
    """`q_` and 16 hex digits over the question and its documents: the same in every run."""
    return "q_" + hashlib.sha256("\0".join((text, *documents)).encode("utf-8")).hexdigest()[:16]

"""Passages and questions while they are read, in an order that the order of the input does not change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.records.passages import Passage, passage_id
from pipeline_prep.questions import Converted, Question, question_id

Order = tuple[Any, ...]
"""Where a passage or question stands among the others; comes from content alone."""


class Gathered:
    """Collects what an input holds; `finish` sorts it.

    Passages of equal text are one, with the documents of all. Of several titles the first in the alphabet counts.
    """

    def __init__(self) -> None:
        self._texts: dict[str, tuple[str, str]] = {}
        self._documents: dict[str, set[str]] = {}
        self._order: dict[str, Order] = {}
        self._questions: list[tuple[Order, Question]] = []
        self._ties: set[tuple[str, ...]] = set()

    def passage(self, text: str, title: str = "", documents: Iterable[str] = (), order: Order = ()) -> str | None:
        """Note a passage and return its id; None for a blank one. Without text the title is the text.

        Without `documents` the passage is its own document, under its id.
        """
        if not text.strip():
            text, title = title, ""
        if not text.strip():
            return None
        key = passage_id(text)
        before = self._texts.setdefault(key, (text, title))[1]
        if title and (not before or title < before):
            self._texts[key] = (text, title)
        self._documents.setdefault(key, set()).update(documents or (key,))
        self._order[key] = min(self._order.get(key, order), order)
        return key

    def documents_of(self, passages: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted({name for key in passages for name in self._documents[key]}))

    def question(
        self,
        text: str,
        documents: tuple[str, ...],
        positives: Iterable[str],
        metadata: dict[str, Any],
        where: str,
        negatives: Iterable[str] = (),
        order: Order = (),
    ) -> Question:
        """Note a question; passages that stand twice count once, and a positive is no negative."""
        right = tuple(dict.fromkeys(positives))
        wrong = tuple(key for key in dict.fromkeys(negatives) if key not in right)
        made = Question(question_id(text, documents), text, documents, right, metadata, where, wrong)
        self._questions.append((order, made))
        self.tie(documents)
        return made

    def tie(self, documents: tuple[str, ...]) -> None:
        """These documents must stay together."""
        if len(documents) > 1:
            self._ties.add(documents)

    @property
    def passages(self) -> int:
        return len(self._texts)

    def finish(self, given: dict[str, str] | None = None) -> Converted:
        keys = sorted(self._texts, key=lambda key: (self._order[key], key))
        passages = {key: Passage(key, *self._texts[key], tuple(sorted(self._documents[key]))) for key in keys}
        for passage in passages.values():
            self.tie(passage.documents)
        questions = [question for _, question in sorted(self._questions, key=_place)]
        return Converted(passages, questions, sorted(self._ties), given or {})


def _place(item: tuple[Order, Question]) -> tuple[Any, ...]:
    order, question = item
    return order, question.text, question.id, question.positives, question.negatives, str(question.metadata)

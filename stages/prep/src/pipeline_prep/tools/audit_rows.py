"""The audit's checks of one row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.records.sources.check import as_list
from pipeline_prep.tools.audit_context import Answers, Passages
from pipeline_prep.tools.judgements import Judgements
from pipeline_prep.tools.training_json import Document

ISSUES = {
    "empty_question": "the question is empty or no text",
    "duplicate_question_id": "an earlier row has the same question_id",
    "unknown_corpus": "corpus_id is none of the file's corpora",
    "no_positive": "pos_doc is empty",
    "unknown_positive": "the positive is not in the corpus",
    "missing_positive_score": "the positive has no score",
    "non_finite_positive_score": "the positive's score is NaN, infinite or no number",
    "question_in_test_qrels": "the question is asked in the test set",
    "positive_in_test_qrels": "the positive answers a question of the test set",
    "negative_is_known_positive": "the negative is in pos_doc or known_pos_ids of the same row",
    "negative_is_sibling_positive": "the negative answers the same question in another row",
    "negative_judged_relevant": "the judgements say that the negative answers the question",
    "negative_near_duplicate_of_positive": "the negative says nearly the same as a positive",
    "unknown_negative": "the negative is not in the corpus",
    "duplicate_negative": "the row names the negative twice; the first stays",
    "missing_negative_score": "the negative has no score",
    "non_finite_negative_score": "the negative's score is NaN, infinite or no number",
    "too_few_negatives": "fewer negatives without findings than asked for",
}
"""Every issue and what it means. Those about one negative can be mended by dropping it."""


MOST = 1e38
"""Training holds scores in fp32."""


@dataclass(frozen=True)
class Finding:
    """One thing wrong: with a negative (its place in `neg_doc`), a positive (its id), or the row."""

    row: int
    issue: str
    negative: int | None = None
    positive_id: str | None = None

    def to_json(self, document: Document) -> dict[str, Any]:
        row = document.rows[self.row]
        shown: dict[str, Any] = {"row": self.row, "question_id": row["question_id"], "issue": self.issue}
        if self.negative is not None:
            shown["negative_id"] = document.passages(self.row, "neg_doc")[self.negative]
        if self.positive_id is not None:
            shown["positive_id"] = self.positive_id
        if "original_question_id" in row:
            shown["original_question_id"] = row["original_question_id"]
        return shown


class Checks:
    """Checks rows one after the other, in order."""

    def __init__(
        self,
        document: Document,
        passages: Passages,
        answers: Answers,
        min_negatives: int,
        near_duplicates: float | None,
        judged: Judgements | None,
    ) -> None:
        self._document, self._passages, self._answers = document, passages, answers
        self._min_negatives, self._near_duplicates, self._judged = min_negatives, near_duplicates, judged
        self._held_out = judged.passages() if judged and judged.held_out else set()
        self._seen: set[str] = set()

    def row(self, row: int) -> list[Finding]:
        """All findings of a row."""
        bad = list(self._negatives(row))
        found = [*self._question(row), *self._positives(row), *bad]
        good = len(as_list(self._document.rows[row]["neg_doc"])) - len({item.negative for item in bad})
        return [*found, Finding(row, "too_few_negatives")] if good < self._min_negatives else found

    def _question(self, row: int) -> Iterator[Finding]:
        question, name = self._document.rows[row]["question"], self._document.id_of(row)
        if not isinstance(question, str) or not question.strip():
            yield Finding(row, "empty_question")
        if name in self._seen:
            yield Finding(row, "duplicate_question_id")
        self._seen.add(name)
        if self._document.id_of(row, "corpus_id") not in self._passages.corpus_ids:
            yield Finding(row, "unknown_corpus")
        if self._judged and self._judged.held_out and self._judged_answers(row) is not None:
            yield Finding(row, "question_in_test_qrels")

    def _positives(self, row: int) -> Iterator[Finding]:
        names = self._document.passages(row, "pos_doc")
        if not names:
            yield Finding(row, "no_positive")
        for name, item in zip(names, as_list(self._document.rows[row]["pos_doc"]), strict=True):
            if self._is_unknown(row, name):
                yield Finding(row, "unknown_positive", positive_id=name)
            if issue := _score_issue(item):
                yield Finding(row, f"{issue}_positive_score", positive_id=name)
            if name in self._held_out:
                yield Finding(row, "positive_in_test_qrels", positive_id=name)

    def _negatives(self, row: int) -> Iterator[Finding]:
        items, names = as_list(self._document.rows[row]["neg_doc"]), self._document.passages(row, "neg_doc")
        known = self._document.known(row)
        own, all_known, judged = set(known), self._answers.of(self._document, row), self._judged_answers(row) or set()
        for place, (name, item) in enumerate(zip(names, items, strict=True)):
            if name in own:
                yield Finding(row, "negative_is_known_positive", place)
            elif name in all_known:
                yield Finding(row, "negative_is_sibling_positive", place)
            elif copied := self._copied(row, name, known):
                yield Finding(row, "negative_near_duplicate_of_positive", place, copied)
            if name in judged:
                yield Finding(row, "negative_judged_relevant", place)
            if self._is_unknown(row, name):
                yield Finding(row, "unknown_negative", place)
            if name in names[:place]:
                yield Finding(row, "duplicate_negative", place)
            if issue := _score_issue(item):
                yield Finding(row, f"{issue}_negative_score", place)

    def _judged_answers(self, row: int) -> set[str] | None:
        question = self._document.rows[row]["question"]
        ids = (self._document.id_of(row), self._document.question_of(row)[1])
        return self._judged.of(ids, question) if self._judged and isinstance(question, str) else None

    def _is_unknown(self, row: int, name: str) -> bool:
        """Where the corpus itself is unknown, that is one finding and not one for each passage."""
        corpus_id = self._document.id_of(row, "corpus_id")
        return corpus_id in self._passages.corpus_ids and not self._passages.has(corpus_id, name)

    def _copied(self, row: int, name: str, known: list[str]) -> str | None:
        """The first known answer that the passage is a near-duplicate of."""
        if self._near_duplicates is None:
            return None
        corpus_id = self._document.id_of(row, "corpus_id")
        alike = (one for one in known if self._passages.likeness(corpus_id, name, one) >= self._near_duplicates)
        return next(alike, None)


def _score_issue(item: Any) -> str | None:
    """`missing`, `non_finite`, or None where the passage has a finite score."""
    score = item.get("score") if isinstance(item, dict) else None
    if score is None:
        return "missing"
    number = isinstance(score, (int, float)) and not isinstance(score, bool)
    # A comparison is False for NaN, and takes whole numbers that are too big for a float.
    return None if number and abs(score) < MOST else "non_finite"

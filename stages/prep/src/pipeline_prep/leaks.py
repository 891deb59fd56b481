"""What training must not see because the test set asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.records.passages import Passage
from pipeline_prep.document_groups import Tie, document_texts
from pipeline_prep.duplicates import near_duplicates_of, question_shingles, words
from pipeline_prep.funnel import Funnel
from pipeline_prep.questions import Converted, Question


@dataclass(frozen=True)
class Protected:
    """A test set as the leak rules see it.

    `documents` are the names of its source documents, `document_texts` their texts, `passages` the texts that answer
    its questions.
    """

    documents: frozenset[str]
    document_texts: Sequence[str]
    passages: Sequence[str]
    questions: Sequence[str]


def protected_by(converted: Converted, questions: Iterable[Question]) -> Protected:
    """The test set that these of our own questions make."""
    asked = list(questions)
    documents = {name for question in asked for name in question.documents}
    positives = sorted({key for question in asked for key in question.positives})
    return Protected(
        frozenset(documents),
        list(document_texts(converted.passages.values(), documents).values()),
        [converted.passages[key].text for key in positives],
        [question.text for question in asked],
    )


def answers_of_test(passages: Iterable[Passage], protected: Protected, threshold: float | None) -> frozenset[str]:
    """Ids of our passages that answer a test question: the same text or, with a threshold, nearly the same."""
    ours = list(passages)
    return frozenset(ours[place].id for place in answers_of_texts([item.text for item in ours], protected, threshold))


def answers_of_texts(texts: Sequence[str], protected: Protected, threshold: float | None) -> list[int]:
    """Places of the texts that answer a test question: the same text or, with a threshold, nearly the same."""
    answers = set(protected.passages)
    same = [place for place, text in enumerate(texts) if text in answers]
    rest = sorted(set(range(len(texts))).difference(same))
    found = _alike(list(map(str, rest)), [texts[place] for place in rest], protected.passages, threshold)
    return sorted([*same, *map(int, found)])


def documents_of_test(
    converted: Converted, documents: set[str], known: Iterable[Tie], protected: Protected, threshold: float | None
) -> set[str]:
    """Those of `documents` that the test set uses, their near-duplicates, and what `known` groups put beside them.

    Not transitive over shared passages and questions: with training questions of several documents each that would
    reach nearly the whole corpus.
    """
    taken = documents & protected.documents
    texts = document_texts(converted.passages.values(), documents - taken)
    taken |= _alike(list(texts), list(texts.values()), protected.document_texts, threshold)
    return taken.union(*(group for group in known if not taken.isdisjoint(group)))


def _alike(names: list[str], texts: list[str], others: Sequence[str], threshold: float | None) -> set[str]:
    """Names of the texts that have a near-duplicate among the others."""
    if threshold is None:
        return set()
    found = near_duplicates_of(texts, others, threshold)
    return {name for name, other in zip(names, found.tolist(), strict=True) if other >= 0}


def without_test_content(
    questions: Iterable[Question], documents: set[str], answers: frozenset[str], funnel: Funnel
) -> list[Question]:
    """Drop the questions on these documents of the test set and those that its passages answer."""
    kept = []
    for question in questions:
        if named := sorted(documents.intersection(question.documents)):
            funnel.reject("document of a test question", question.where, question.text, ", ".join(named))
        elif answering := sorted(answers.intersection(question.positives)):
            funnel.reject("answered by a test passage", question.where, question.text, ", ".join(answering))
        else:
            kept.append(question)
    return kept


def without_repeats(
    questions: Sequence[Question], others: Sequence[str], side: str, threshold: float | None, funnel: Funnel
) -> list[Question]:
    """Drop the questions that are also asked, in the same or nearly the same words, among the `others` of `side`."""
    by_words = {tuple(words(text)): text for text in others}
    matches: list[str | None] = [by_words.get(tuple(words(question.text))) for question in questions]
    if threshold is not None:
        found = near_duplicates_of([question.text for question in questions], others, threshold, question_shingles)
        matches = [
            match or (others[near] if near >= 0 else None) for match, near in zip(matches, found.tolist(), strict=True)
        ]
    kept = []
    for question, match in zip(questions, matches, strict=True):
        if match is None:
            kept.append(question)
        else:
            funnel.reject(f"near-duplicate of a {side} question", question.where, question.text, match)
    return kept

"""What training must not see because the test set asks for it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline_prep.document_groups import Tie, document_texts
from pipeline_prep.duplicates import near_duplicates_of, question_shingles, words
from pipeline_prep.funnel import Funnel
from pipeline_prep.questions import Converted, Question

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Protected:
    """A test set as the leak rules see it.

    Attributes:
        documents: names of its source documents.
        document_texts: their texts; an answer that names no document is a document of its own.
        content: texts of all passages of these documents.
        answers: the texts that answer its questions.
        unnamed: those of them that name no document.
        questions: their texts.
    """

    documents: frozenset[str]
    document_texts: Sequence[str]
    content: Sequence[str]
    answers: Sequence[str]
    unnamed: Sequence[str]
    questions: Sequence[str]


@dataclass(frozen=True)
class Barred:
    """What a test set takes out of training.

    Attributes:
        documents: names of its documents, of ours that are nearly the same, and of what known groups put beside them.
        passages: ids of our passages that stand in these, or repeat what stands in the test documents.
        answers: ids of those that answer its questions, or nearly repeat one that does.
    """

    documents: frozenset[str]
    passages: frozenset[str]
    answers: frozenset[str]


def protected_by(converted: Converted, questions: Iterable[Question]) -> Protected:
    """The test set that these of our own questions make."""
    asked = list(questions)
    documents = {name for question in asked for name in question.documents}
    positives = sorted({key for question in asked for key in question.positives})
    return Protected(
        documents=frozenset(documents),
        document_texts=list(document_texts(converted.passages.values(), documents).values()),
        content=[item.text for item in converted.passages.values() if not documents.isdisjoint(item.documents)],
        answers=[converted.passages[key].text for key in positives],
        unnamed=[],
        questions=[question.text for question in asked],
    )


def barred_by(
    protected: Protected, converted: Converted, documents: set[str], known: Iterable[Tie], threshold: float | None
) -> Barred:
    """What of our `documents` and passages a test set takes.

    Not transitive over shared passages and questions: with training questions of several documents each that would
    reach nearly the whole corpus. A passage that one of our documents shares with a test document takes the questions
    on that passage alone.
    """
    taken = _documents(protected, converted, documents, known, threshold)
    ours = list(converted.passages.values())
    named = {item.id for item in ours if not taken.isdisjoint(item.documents)}
    content = [*protected.content, *protected.answers, *protected.document_texts]
    repeated = _alike({item.id: item.text for item in ours if item.id not in named}, content, threshold)
    inside = [item for item in ours if item.id in named or item.id in repeated]
    places = answers_of_texts([item.text for item in inside], protected, threshold)
    return Barred(taken, frozenset(item.id for item in inside), frozenset(inside[place].id for place in places))


def answers_of_texts(texts: Sequence[str], protected: Protected, threshold: float | None) -> list[int]:
    """Places of the texts that answer a test question: the same text or, with a threshold, nearly the same."""
    return sorted(_alike(dict(enumerate(texts)), protected.answers, threshold))


def _documents(
    protected: Protected, converted: Converted, documents: set[str], known: Iterable[Tie], threshold: float | None
) -> frozenset[str]:
    unnamed = set(protected.unnamed)
    of_answers = {name for item in converted.passages.values() if item.text in unnamed for name in item.documents}
    taken = protected.documents | (documents & of_answers)
    texts = document_texts(converted.passages.values(), documents - taken)
    taken |= _alike(texts, protected.document_texts, threshold)
    return taken.union(*(group for group in known if not taken.isdisjoint(group)))


def _alike(texts: Mapping[Key, str], others: Sequence[str], threshold: float | None) -> set[Key]:
    """Keys of the texts that are one of the others, or nearly one, or that lie in one or hold one."""
    known = dict.fromkeys(others)
    same = {key for key, text in texts.items() if text in known}
    if threshold is None:
        return same
    rest = [key for key in texts if key not in same]
    found = near_duplicates_of([texts[key] for key in rest], list(known), threshold, contained=True)
    return same.union(key for key, other in zip(rest, found.tolist(), strict=True) if other >= 0)


def without_test_content(questions: Iterable[Question], barred: Barred, funnel: Funnel) -> list[Question]:
    """Drop the questions on documents of the test set, and those that its passages answer."""
    kept = []
    for question in questions:
        if named := sorted(barred.documents.intersection(question.documents)):
            funnel.reject("document of a test question", question.where, question.text, ", ".join(named))
        elif answering := sorted(barred.answers.intersection(question.positives)):
            funnel.reject("answered by a test passage", question.where, question.text, ", ".join(answering))
        elif inside := sorted(barred.passages.intersection(question.positives)):
            funnel.reject("answered in a test document", question.where, question.text, ", ".join(inside))
        else:
            kept.append(question)
    return kept


def without_answers_of(questions: Iterable[Question], val: Iterable[Question], funnel: Funnel) -> list[Question]:
    """Drop the questions whose positives are all positives of one question of `val`.

    That is all that is compared where the input gives val, besides the questions: single passages in common, documents
    and near-duplicates stay, for with many positives to a question they would take nearly all of train. Validation
    chooses a checkpoint; it is not what is reported.
    """
    answers: dict[str, list[set[str]]] = {}
    for question in val:
        positives = set(question.positives)
        for key in positives:
            answers.setdefault(key, []).append(positives)
    kept = []
    for question in questions:
        if any(held.issuperset(question.positives) for held in answers.get(question.positives[0], ())):
            funnel.reject("answered as a val question", question.where, question.text, ", ".join(question.positives))
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

"""Rules that keep a passage from being a negative: it holds the answer, or it repeats a passage that does.

Candidates are flat arrays `row` and `passage`, int64 [P], sorted by row; masks are bool [P], True = no negative.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from pipeline.contract import EncodingContract
from pipeline_prep.duplicates import jaccard, shingles, words
from pipeline_prep.mining.task import MiningTask

_TELLING_WORDS, _TELLING_LETTERS, _LETTERS_OF_A_SIGN = 3, 12, 3
_ROWS_AT_ONCE, _SHINGLES_KEPT = 8_192, 20_000
"""The shingles of a passage take about 10 kB."""


def full_text(task: MiningTask, passage: int) -> str:
    """Title and text as every model sees them, without a prefix."""
    return EncodingContract().format_passage(task.text(passage), task.title(passage))


def contains_answer(task: MiningTask, row: np.ndarray, passage: np.ndarray) -> np.ndarray:
    """Whether each passage (title and text) holds the answer of the row's question word for word: bool [P].

    Case, Unicode form, spacing and punctuation do not count; the match begins and ends at the border of a word.
    See `is_telling` for answers that are not looked for.
    """
    found = np.zeros(len(row), bool)
    answers = {number: _looked_for(task.answers[number]) for number in np.unique(row).tolist()}
    asked = np.flatnonzero([bool(answers[number]) for number in row.tolist()])
    for number, places in _by_passage(passage, asked):
        text = full_text(task, number)
        folded = unicodedata.normalize("NFKC", text).casefold()
        spaced = None
        for place in places:
            for longest, answer in answers[int(row[place])]:
                if longest in folded:  # far cheaper than taking the text apart, and nearly always false
                    spaced = spaced or _spaced(words(text))
                    found[place] |= answer in spaced
    return found


def _looked_for(answers: Sequence[str]) -> list[tuple[str, str]]:
    """(longest word, whole answer between spaces) of each answer that tells something."""
    told = [answer for answer in map(words, answers) if is_telling(answer)]
    return [(max(answer, key=len), _spaced(answer)) for answer in told]


def is_telling(answer: list[str]) -> bool:
    """Whether these words say enough to know an answer by: three words, or twelve letters.

    "Yes", "2019" or "water" stand in many passages that answer nothing; to leave those out would cost good negatives.
    A character of a script without spaces is a word here; it weighs as much as three letters and is no word.
    """
    signs = sum(len(word) == 1 and not word.isascii() for word in answer)
    letters = sum(map(len, answer)) - signs + _LETTERS_OF_A_SIGN * signs
    return len(answer) - signs >= _TELLING_WORDS or letters >= _TELLING_LETTERS


def _spaced(found: list[str]) -> str:
    """One line in which a word stands between two spaces."""
    return f" {' '.join(found)} "


def repeats_positive(task: MiningTask, row: np.ndarray, passage: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each passage is nearly the same text as one that answers the row's question: bool [P].

    Nearly the same: the Jaccard similarity of their shingles is at least `threshold` (Broder 1997, "On the
    resemblance and containment of documents", https://doi.org/10.1109/SEQUEN.1997.666900).
    """
    known_shingles = lru_cache(_SHINGLES_KEPT)(lambda number: shingles(task.text(number)))
    found = np.zeros(len(row), bool)
    for block in _row_blocks(row):
        for number, places in _by_passage(passage, block):
            own = shingles(task.text(number))
            for place in places:
                known = task.known[int(row[place])].tolist()
                found[place] = any(_alike(own, known_shingles(key), threshold) for key in known)
    return found


def _alike(first: frozenset[int], second: frozenset[int], threshold: float) -> bool:
    """`jaccard` >= threshold. It is never above the quotient of the sizes, which costs nothing."""
    small, large = sorted((len(first), len(second)))
    return (not large or small / large >= threshold) and jaccard(first, second) >= threshold


def _row_blocks(row: np.ndarray) -> list[np.ndarray]:
    """Places of `_ROWS_AT_ONCE` rows each: few enough that the shingles of their known passages are all kept."""
    return np.split(np.arange(len(row)), np.flatnonzero(np.diff(row // _ROWS_AT_ONCE)) + 1)


def _by_passage(passage: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Each passage once, with the places among `places` where it stands: no text is taken apart twice."""
    order = places[np.argsort(passage[places], kind="stable")]
    yield from _groups(passage[order], order)


def _groups(keys: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """(key, its places) for each run of equal `keys`; `places` is as long as `keys`."""
    starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
    for key, group in zip(keys[starts].tolist(), np.split(places, starts[1:]), strict=bool(len(keys))):
        yield key, group.tolist()

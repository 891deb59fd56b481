"""How a question is asked: as a sentence, as the words of a search box, in a person's situation, or mistyped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from pipeline_sdg.identifiers import identifiers
from pipeline_sdg.templates import DEFAULT, Prompts
from pipeline_sdg.wording import ends_sensibly, has_end_mark, word_count, words

PLAIN = "question"
MISTYPED = "typo"
KEYWORDS = (2, 6)
LONGEST_SHORT = 6
"""Words."""
SEARCH_WORDS = ("keyword", "short")
"""Styles that are no sentences: two or three words may stand in the source as they are."""

_QUESTION_START = re.compile(
    r"(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|can|could|should|must|may|will)\b",
    re.IGNORECASE,
)
_NEIGHBOURS = {
    letter: "".join(other for at in (place - 1, place + 1) if 0 <= at < len(row) for other in row[at])
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for place, letter in enumerate(row)
}
"""Keys beside a key, on the keyboard most questions in Latin letters are typed on."""
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_TWO_SLIPS_FROM = 8
"""Words of a question that is long enough for two slips."""


def asked_for(styles: Mapping[str, int]) -> bool:
    """Whether there is any style but plain questions."""
    return any(count and name != PLAIN for name, count in styles.items())


def instructions(personas: Sequence[str], prompts: Prompts = DEFAULT) -> str:
    """The part of the prompt that explains the styles."""
    asks = f"one of these: {'; '.join(personas)}" if personas else "a person you think of who needs the answer"
    return prompts.render("qa_styles", personas=asks, longest_short=LONGEST_SHORT)


def problem_of_style(question: str, style: str) -> str | None:
    """Why a question is not in its style, or None."""
    count = word_count(question)
    if style == "keyword":
        if not KEYWORDS[0] <= count <= KEYWORDS[1]:
            return f"must be {KEYWORDS[0]} to {KEYWORDS[1]} words for the style keyword"
        if has_end_mark(question) or _QUESTION_START.match(question):
            return "must be words for a search box, no sentence, for the style keyword"
    elif style == "short":
        if count > LONGEST_SHORT:
            return f"must have at most {LONGEST_SHORT} words for the style short"
    elif not ends_sensibly(question):
        return "breaks off"
    return None


def as_typed(pair: dict[str, Any]) -> dict[str, Any]:
    """The pair as it is published: a question of the style `typo` gets its slips, and is kept clean beside them.

    Duplicates are looked for and labels are made with the clean question, so this comes last.
    """
    if pair.get("query_style") != MISTYPED:
        return pair
    return {**pair, "question": mistyped(pair["question"]), "clean_question": pair["question"]}


def mistyped(question: str) -> str:
    """The question with one slip, a longer one with two; always the same for the same question.

    Never in a name, a code or a number, and never in the first letter of a word, where people seldom err.
    """
    random = Random(question)
    exact = identifiers(question)
    places = [
        match.span()
        for match in _LONG_WORD.finditer(question)
        if not any(match.group() in name for name in exact) and match.group().islower()
    ]
    slips = min(len(places), 2 if len(words(question)) >= _TWO_SLIPS_FROM else 1)
    for start, end in sorted(random.sample(places, slips), reverse=True):
        question = question[:start] + _slip(question[start:end], random) + question[end:]
    return question


def _slip(word: str, random: Random) -> str:
    """The word with one error that changes it."""
    at = random.randrange(1, len(word) - 1)
    found = [kind(word, at, random) for kind in random.sample(_KINDS, len(_KINDS))]
    return next(other for other in found if other != word)


def _neighbouring_key(word: str, at: int, random: Random) -> str:
    return word[:at] + random.choice(_NEIGHBOURS.get(word[at], word[at])) + word[at + 1 :]


def _doubled(word: str, at: int, _: Random) -> str:
    return word[: at + 1] + word[at:]


def _missing(word: str, at: int, _: Random) -> str:
    return word[:at] + word[at + 1 :]


def _swapped(word: str, at: int, _: Random) -> str:
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


_KINDS: tuple[Callable[[str, int, Random], str], ...] = (_neighbouring_key, _doubled, _missing, _swapped)

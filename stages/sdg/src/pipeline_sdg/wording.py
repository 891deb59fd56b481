"""Deterministic rules for the wording of a question. They need no model and give a reason for what they drop.

Written for English; in other languages the rules about function words find nothing to object to.
"""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher

FEWEST_WORDS = 3
FEWEST_SEARCH_WORDS = 2
LONGEST_COPY = 0.8
"""Share of a question's words that may stand in one piece in a sentence of the source."""

_WORD = re.compile(r"[^\W_]+(?:[-.'’/:_][^\W_]+)*")
_NEVER_LAST = frozenset({"a", "an", "and", "as", "because", "if", "or", "than", "the", "their", "your"})
_META = re.compile(
    r"\b(?:(?:the|this|that|these|given|above|provided|following|according to the)\s+)?"
    r"(?:text|passage|paragraph|document|segment|excerpt|author|writer|transcript|statement|context|story|json)s?\b",
    re.IGNORECASE,
)
_ENUMERATION = re.compile(r"(?:^|\s)(?:\d+[.)]|[a-e]\)|[-*•])\s")
_JSON_LEAK = re.compile(r"^\s*[{\[]|[{,]\s*\"|\"\s*[:\]}]|```")
_LEADING_MARK = re.compile(r"^\s*(?:(?:Q|question)?\s*\d*\s*[.):]|[-*•])\s+", re.IGNORECASE)
_LEAD = (
    r"^(?:(?:what|which|when|where|why|who|how(?: \w+)?)\s+)?"
    r"(?:(?:is|are|was|were|do|does|did|can|could|has|have|should|must|may|will|would)\s+)?"
)
_DANGLING = (
    re.compile(
        _LEAD + r"(?P<what>(?-i:It|it|Its|its)|they|them|their|he|she|his|her)\b"
        r"(?!.*\b(?:to|that|if|when|for|like|what|which|whether|how|who|where)\b)",
        re.IGNORECASE,
    ),
    re.compile(
        _LEAD + r"(?P<what>(?:this|these|those)\b(?!\s+(?:day|week|month|year|who|with|that|of)s?\b)(?:\s+\w+)?)",
        re.IGNORECASE,
    ),
    re.compile(
        _LEAD + r"(?P<what>the\s+(?:company|firm|organi[sz]ation|study|paper|article|report|researchers))\b"
        r"(?!\s+(?:of|that|which|who|in|on|for|by|with|called|named)\b)(?-i:(?!.*\s[A-Z]))",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?P<what>the (?:above|aforementioned|latter|former)|(?:mentioned|described|shown) (?:above|earlier))\b",
        re.IGNORECASE,
    ),
)
"""Pronouns and the like near the beginning, where nothing in the question itself can be meant."""
_FUNCTION_WORDS = frozenset(
    """
    a able about after again all also am an and any are as at be because been before being between both but by can
    could did do does doing during each for from further had has have he her here his how i i'm if in into is it its
    itself just long many may me more most much must my need no not now of off often on once one only or other our
    out over own per same shall she should so some such than that the their them then there these they this those
    through to too under until up use used using very was we were what when where which while who whom why will with
    within without would you your
    """.split()  # noqa: SIM905 - two hundred quoted words are harder to read
)
_QUESTION_WORDS = frozenset(
    """
    amount cause difference function get happen kind know mean number purpose reason required role take tell time type
    value way work
    """.split()  # noqa: SIM905
)
"""Words a question may bring along: they say what is asked, not about what."""


def words(text: str) -> list[str]:
    """Lower-case words; codes such as MK-1210, v5.1 and http_requests stay whole."""
    return _WORD.findall(text.lower())


def content_words(text: str) -> set[str]:
    """Words that say what a text is about, with plural and verb endings cut."""
    return {_stem(word) for word in words(text) if word not in _FUNCTION_WORDS and word not in _QUESTION_WORDS}


def _stem(word: str) -> str:
    word = word.removesuffix("'s").removesuffix("’s")
    if _has_digit(word):
        return word
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word.removesuffix("e") if len(word) > 3 else word


def _has_digit(word: str) -> bool:
    return any(character.isdigit() for character in word)


def tidy(question: str) -> str:
    """One line, without list mark or surrounding quotes."""
    text = _LEADING_MARK.sub("", " ".join(question.split()))
    return text.strip().strip("\"'“”").strip()


def problem_of(question: str, source: str, sentence: bool = True) -> str | None:
    """Why a question cannot be used, or None. `source` is what the question was written from.

    `sentence` False: words for a search box, which may be few and stand in the source as they are.
    """
    tokens = words(question)
    if len(tokens) < (FEWEST_WORDS if sentence else FEWEST_SEARCH_WORDS):
        return "is too short"
    if _JSON_LEAK.search(question):
        return "leaks JSON or markup"
    if _ENUMERATION.search(question):
        return "is an enumeration"
    if _speaks_of_text(question, source):
        return "speaks of the text instead of the matter"
    if _repeats_itself(tokens):
        return "repeats itself"
    if tokens[-1] in _NEVER_LAST:
        return "breaks off"
    if sentence and copied_share(tokens, source) > LONGEST_COPY:
        return "copies the source"
    return None


def dangling_reference(question: str) -> str | None:
    """The words that point at something the question does not name ("this setting"), or None.

    "it" is let pass where a clause follows that it may stand for ("Is it possible to ...").
    """
    found = next((match for pattern in _DANGLING if (match := pattern.search(question))), None)
    return found.group("what") if found else None


def is_question(text: str) -> bool:
    return text.endswith(("?", "？", "؟"))


def ends_sensibly(text: str) -> bool:
    """False for a sentence that breaks off."""
    return text.rstrip("\"'”’)]*` ").endswith((".", "!", "?", "。", "？", "！", "…", "؟"))


def unsupported_words(question: str, source: str) -> set[str]:
    """Content words of the question that the source does not have."""
    return content_words(question) - content_words(source)


def invented_codes(question: str, source: str) -> set[str]:
    """Words with a digit (codes, versions, amounts) that the source does not have."""
    return {word for word in set(words(question)) - set(words(source)) if _has_digit(word)}


def copied_share(tokens: list[str], source: str) -> float:
    """Share of the words that stand in one unbroken piece in the source."""
    if not tokens:
        return 0.0
    other = words(source)
    # The second one is indexed: with the short one there it takes a third of the time.
    match = SequenceMatcher(None, other, tokens, autojunk=False).find_longest_match(0, len(other), 0, len(tokens))
    return match.size / len(tokens)


def _speaks_of_text(question: str, source: str) -> bool:
    """Talk of "the text", unless the source itself uses these words (a manual of a text editor may)."""
    known = source.lower()
    return any(match.group(0).lower() not in known for match in _META.finditer(question))


def _repeats_itself(tokens: list[str]) -> bool:
    triples = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
    if any(count > 1 for count in triples.values()):
        return True
    counts = Counter(token for token in tokens if token not in _FUNCTION_WORDS)
    return any(count > 2 for count in counts.values())

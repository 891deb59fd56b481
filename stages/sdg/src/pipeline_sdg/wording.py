"""Deterministic rules for the wording of a question. They need no model and give a reason for what they drop.

Written for English; in other languages the rules about English words find nothing to object to.
"""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher

from pipeline_sdg.chunking.pieces import length

FEWEST_WORDS = 3
FEWEST_SEARCH_WORDS = 2
MOST_REPEATS = 2
LONGEST_COPY = 0.8
"""Share of a question's words that may stand in one piece in a sentence of the source."""

# Vowel signs and accents, no letters for `re`: Latin, Hebrew, Arabic, the scripts of India, Thai, Lao, Burmese, Khmer.
_MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u064b-\u065f\u0670\u0900-\u0903\u093a-\u0963\u0980-\u0983"
    "\u09bc-\u09e3\u0a00-\u0a03\u0a3c-\u0a51\u0a81-\u0a83\u0abc-\u0ae3\u0b01-\u0b03\u0b3c-\u0b63\u0b82\u0bbe-\u0bd7"
    "\u0c00-\u0c04\u0c3c-\u0c63\u0c81-\u0c83\u0cbc-\u0ce3\u0d00-\u0d03\u0d3b-\u0d63\u0d81-\u0d83\u0dca-\u0ddf"
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u1056-\u1059\u17b4-\u17d3"
)
_SPELLED = rf"[^\W_]+(?:[{_MARKS}]+[^\W_]*)*"
_WORD = re.compile(rf"{_SPELLED}(?:[-.'’/:_]{_SPELLED})*")
_SENTENCE_END = tuple(".!?…。．｡？！؟۔।॥։።፧။។\u037e")
_GREEK = re.compile("[\u0370-\u03ff\u1f00-\u1fff]")
"""Where a semicolon is a question mark."""
_WITHOUT_MARKS = re.compile("[\u0e00-\u0eff]")
"""Thai and Lao: a sentence ends with a space."""
_CLOSING = "\"'”’»›)]*`」』）】》 "
_NEVER_LAST = frozenset({"a", "an", "and", "as", "because", "if", "or", "than", "the", "their", "your"})
# A source about documents makes the noun alone harmless, but not these turns of phrase.
_TEXTS = "text|passage|paragraph|document|segment|excerpt|author|writer|transcript|statement|context(?! of)|story|json"
_OF_TEXTS = re.compile(rf"\b({_TEXTS})s?\b", re.IGNORECASE)
_OF_THE_TEXT = re.compile(rf"\b(?:the|this|these)\s+({_TEXTS})s?\b", re.IGNORECASE)
_POINTS_AT_TEXT = re.compile(
    rf"\baccording to (?:the|this|these)\s+(?:{_TEXTS})s?\b"
    rf"|\b(?:the|this)\s+(?:{_TEXTS})\s+(?:says?|states?|mentions?|discuss(?:es)?)\b"
    rf"|\b(?:this|these|(?:the\s+)?(?:above|provided|following)|the\s+given)\s+(?:{_TEXTS})s?\b"
    r"|\bsegments?\s+\d+\b",
    re.IGNORECASE,
)
_ENUMERATION = re.compile(
    r"^\s*(?:\d+[.)]|[a-e]\)|[-*•])\s|\s•\s|:\s[-*]\s|(?<!\S)1[.)]\s.*\s2[.)]\s|(?<!\S)a\)\s.*\sb\)\s"
)
"""A mark where the line begins, or the first two of a list within it; "in 2019. Why" is none."""
_JSON_LEAK = re.compile(r"^\s*(?:\{|\[\s*[\"{\[])|\"\w+\"\s*:\s*[\"{\[\w]|\"\s*[\]}]+\s*$|```")
"""Its beginning, a key with its value, its end; two names in quotes, one after the other, are none."""
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
        r"\b(?P<what>the (?:above|aforementioned|latter|former)|(?:mentioned|described|shown) (?:above|earlier))\b",
        re.IGNORECASE,
    ),
)
"""Pronouns and the like near the beginning, where nothing in the question itself can be meant."""
_UNNAMED = re.compile(
    _LEAD + r"(?P<what>the\s+(?:company|firm|organi[sz]ation|study|paper|article|report|researchers))\b"
    r"(?!\s+(?:of|that|which|who|in|on|for|by|with|called|named)\b)(?-i:(?!.*\s[A-Z]))(?P<rest>.*)",
    re.IGNORECASE,
)
_TO_BE = re.compile(r"\b(?:is|are|was|were)\s+$", re.IGNORECASE)
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


def word_count(text: str) -> int:
    """Words of a text; where words are not set apart by spaces, two letters are one (see `length`)."""
    return length(" ".join(words(text)))


def tidy(question: str) -> str:
    """One line, without list mark or surrounding quotes."""
    text = _LEADING_MARK.sub("", " ".join(question.split()))
    return text.strip().strip("\"'“”").strip()


def problem_of(question: str, source: str, sentence: bool = True, repeats: int = MOST_REPEATS) -> str | None:
    """Why a question cannot be used, or None. `source` is what the question was written from.

    `sentence` False: words for a search box, which may be few and stand in the source as they are.
    `repeats`: how often a word that says something may stand there; three words in a row once less.
    """
    tokens = words(question)
    if word_count(question) < (FEWEST_WORDS if sentence else FEWEST_SEARCH_WORDS):
        return "is too short"
    if _JSON_LEAK.search(question):
        return "leaks JSON or markup"
    if _ENUMERATION.search(question):
        return "is an enumeration"
    if _speaks_of_text(question, source, _OF_TEXTS):
        return "speaks of the text instead of the matter"
    if _repeats_itself(tokens, repeats):
        return "repeats itself"
    if tokens[-1] in _NEVER_LAST and not question.rstrip("?!. ")[-1:].isupper():  # "vitamin A?" is whole
        return "breaks off"
    if sentence and copied_share(tokens, source) > LONGEST_COPY:
        return "copies the source"
    return None


def dangling_reference(question: str) -> str | None:
    """The words that point at something the question does not name ("this setting"), or None.

    "it" is let pass where a clause follows that it may stand for ("Is it possible to ...").
    """
    found = next((match for pattern in _DANGLING if (match := pattern.search(question))), None)
    if found is None and (unnamed := _UNNAMED.search(question)) and not _is_part_of_name(unnamed):
        found = unnamed
    return found.group("what") if found else None


def _is_part_of_name(unnamed: re.Match[str]) -> bool:
    """Whether a noun follows, as in "the company car". Without a dictionary only its place tells it from a verb."""
    if unnamed["rest"].startswith(("'", "’")):
        return False
    following = [word not in _FUNCTION_WORDS for word in words(unnamed["rest"])[:2]]
    if not following or not following[0]:
        return False
    if _TO_BE.search(unnamed.string[: unnamed.start("what")]):  # "What is the company doing", "known for"
        return not words(unnamed["rest"])[0].endswith(("ing", "ed", "known"))
    return following == [True, True]


def speaks_of_text(answer: str, source: str) -> bool:
    """Whether an answer talks of the text it was written from ("the passage", "segment 3")."""
    return _speaks_of_text(answer, source, _OF_THE_TEXT)


def is_question(text: str) -> bool:
    return text.endswith(("?", "？", "؟"))


def ends_sensibly(text: str) -> bool:
    """False for a sentence that breaks off. Scripts that know no mark for its end have nothing to show."""
    return has_end_mark(text) or bool(_WITHOUT_MARKS.search(text))


def has_end_mark(text: str) -> bool:
    """Whether a text ends like a sentence, in any script."""
    bare = text.rstrip(_CLOSING)
    return bare.endswith(_SENTENCE_END) or (bare.endswith(";") and bool(_GREEK.search(bare)))


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


def _speaks_of_text(text: str, source: str, nouns: re.Pattern[str]) -> bool:
    """Talk of "the text", unless the source has the noun (as a manual of a text editor has) or the whole phrase."""
    known = source.lower()
    if any(match.group().lower() not in known for match in _POINTS_AT_TEXT.finditer(text)):
        return True
    found = {match.group(1).lower() for match in nouns.finditer(text)}
    return any(not re.search(rf"\b{noun}s?\b", known) for noun in found)


def _repeats_itself(tokens: list[str], most: int) -> bool:
    triples = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
    if any(count > most - 1 for count in triples.values()):
        return True
    counts = Counter(token for token in tokens if token not in _FUNCTION_WORDS)
    return any(count > most for count in counts.values())

"""Names that must be exact: codes, numbers, versions, names of functions. A text may only have those of its source."""

from __future__ import annotations

import re
from functools import lru_cache

LARGEST_COUNT = 10
"""Numbers up to this may count things ("the 3 steps") without standing in the source."""

_TOKEN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]+(?:(?:[-_./:,']|::)[A-Za-z0-9]+)*")
_JOINTS = re.compile("[-./:,']+")
_PART = re.compile(r"\d+(?:[.,]\d+)*|[A-Za-z0-9_]+")
_NAME = re.compile(r"[a-z0-9][A-Z]|[A-Za-z]_[A-Za-z]|^[A-Z]{2,}$")
"""CamelCase, snake_case, ALL-CAPS."""
_NUMBER = re.compile(r"v?(\d+(?:[.,]\d+)*)(?:[a-z]{0,3})", re.IGNORECASE)
"""With the `v` of a version or a unit stuck to it."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:[,.'’ \u00a0\u202f]\d{3})+(?!\d)")
"""10,000 as some write it; it may be something else too: 10.000, or the ports 80 443."""
_SOFT_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u2010\u2011](?=\w)|(?<=\w)[-\u2010\u2011](?=[^\W\d_])")
"""A hyphen beside a letter, as in Wi-Fi and E-21."""
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
_SPELLED = {name: str(number) for number, name in enumerate(_SMALL.split())} | {
    "once": "1",
    "twice": "2",
    "half": "50",
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "hundred": "100",
    "thousand": "1000",
    **{name: str(number) for number, name in enumerate(_ORDINALS.split(), 1)},
}
_LARGE = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_SPELLED_LARGE = re.compile(rf"\b({'|'.join(_SPELLED)}|\d\d?\d?)[ -]({'|'.join(_LARGE)})\b", re.IGNORECASE)
_SPELLED_WORD = re.compile(rf"\b(?:{'|'.join(_SPELLED)})\b", re.IGNORECASE)
_UNIT = re.compile(
    r"\s*(?:%|°|€|\$|(?:[µnkmcdhg]?(?:m|g|l|s|w|v|a|b|hz|bit)|ms|min|bar|psi|rpm|dpi|px|ppm|db|kwh|mah|inch(?:es)?|ft"
    r"|percent|degrees?|(?:milli|micro)?seconds?|minutes?|hours?|days?|weeks?|months?|years?"
    r"|(?:kilo|centi|milli)?(?:met(?:re|er)s?|lit(?:re|er)s?|grams?)|volts?|amps?|amperes?|watts?|ohms?"
    r"|(?:kilo|mega|giga|tera)?bytes?|dollars?|euros?|pounds?)(?![A-Za-z]))",
    re.IGNORECASE,
)
_LIST_NUMBER = re.compile(r"(?<!\S)(?:step )?\(?(\d{1,2})[.):](?=\s)", re.IGNORECASE)
_COUNTED = re.compile(r"[\s-][a-z]")


def identifiers(text: str) -> set[str]:
    """Words with a digit and names in CamelCase, snake_case or ALL-CAPS, as written."""
    return {match.group() for match in _TOKEN.finditer(text) if _is_identifier(match.group())}


def invented(text: str, *sources: str) -> list[str]:
    """Identifiers of a text that none of its sources has, in order, as written.

    Case, hyphens, separators of thousands, a unit stuck to its number, the `v` of a version, spelled numbers and
    abbreviations of what is spelled out make no difference. A number from 1 to 10 that counts things is no identifier;
    one with a unit of measurement is.
    """
    source = _plain(" \n ".join(sources))
    plain = _GROUPED.sub(lambda number: _joined_if_known(number.group(), source), _THOUSANDS.sub("", text))
    candidates = [match for match in _TOKEN.finditer(plain) if _is_identifier(match.group())]
    tokens = dict.fromkeys(match.group() for match in candidates if not _counts(match, plain))
    return [token for token in tokens if not _stands_in(token, source)]


def without_list_numbers(text: str) -> str:
    """The text less the numbers of a list within it ("1. Hold Menu. 2. Press Up."), which count from 1."""
    marks: list[re.Match[str]] = []
    for mark in _LIST_NUMBER.finditer(text):
        if int(mark[1]) == len(marks) + 1:
            marks.append(mark)
    if len(marks) < 2:
        return text
    ends = [0, *(mark.end() for mark in marks)]
    starts = [*(mark.start() for mark in marks), len(text)]
    return " ".join(text[end:start] for end, start in zip(ends, starts, strict=True))


def _is_identifier(token: str) -> bool:
    return _has_digit(token) or any(_NAME.search(part) for part in _JOINTS.split(token))


def _has_digit(token: str) -> bool:
    return any(character.isdigit() for character in token)


def _counts(match: re.Match[str], text: str) -> bool:
    """Whether a token is a small number of things."""
    token = match.group()
    if not token.isdigit() or not 1 <= int(token) <= LARGEST_COUNT:
        return False
    return bool(_COUNTED.match(text, match.end())) and not _UNIT.match(text, match.end())


@lru_cache(maxsize=32)
def _plain(source: str) -> str:
    """The source in lower case, without separators of thousands; behind it the other ways to write what it has."""
    numbers = [_SPELLED[match.group().lower()] for match in _SPELLED_WORD.finditer(source)]
    for count, size in _SPELLED_LARGE.findall(source):
        numbers.append(str(int(_SPELLED.get(count.lower(), count)) * _LARGE[size.lower()]))
    numbers += [_digits(match.group()) for match in _GROUPED.finditer(source)]
    names = [_SOFT_HYPHEN.sub("", name) for name in source.split() if _SOFT_HYPHEN.search(name)]
    return " ".join([_THOUSANDS.sub("", source), *numbers, *names]).lower()


def _digits(number: str) -> str:
    return re.sub(r"\D", "", number)


def _joined_if_known(number: str, source: str) -> str:
    """A number without what groups its digits, if the source has it that way."""
    return _digits(number) if _stands_in(_digits(number), source) else number


def _stands_in(token: str, source: str) -> bool:
    """Whether the source (see `_plain`) has a token: itself, its number, its long form, or else all its parts."""
    name = token.lower()
    if re.search(rf"(?<![a-z0-9])(?<!\d[.,]){re.escape(name)}(?:'?s)?(?![a-z0-9])(?![.,]\d)", source):
        return True
    number = _NUMBER.fullmatch(token)
    if number:
        return bool(re.search(rf"(?<![a-uw-z0-9])(?<!\d[.,]){re.escape(number[1])}(?![.,]?\d)", source))
    if token.isalpha() and token.isupper():
        return name in "".join(re.findall(r"\b[a-z]", source))
    if _SOFT_HYPHEN.search(name) and _stands_in(_SOFT_HYPHEN.sub("", name), source):
        return True
    if name.endswith("s") and not _has_digit(token):
        return _stands_in(token[:-1], source)
    parts = [part for part in _PART.findall(token) if part != token and _is_identifier(part)]
    return bool(parts) and all(_stands_in(part, source) for part in parts)

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
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
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
}
_SPELLED_WORD = re.compile(rf"\b(?:{'|'.join(_SPELLED)})\b", re.IGNORECASE)
_UNIT = re.compile(
    r"\s*(?:%|°|€|\$|(?:[µnkmcdhg]?(?:m|g|l|s|w|v|a|b|hz|bit)|ms|min|bar|psi|rpm|dpi|px|ppm|db|kwh|mah|inch(?:es)?|ft"
    r"|percent|degrees?|(?:milli|micro)?seconds?|minutes?|hours?|days?|weeks?|months?|years?"
    r"|(?:kilo|centi|milli)?(?:met(?:re|er)s?|lit(?:re|er)s?|grams?)|volts?|amps?|amperes?|watts?|ohms?"
    r"|(?:kilo|mega|giga|tera)?bytes?|dollars?|euros?|pounds?)(?![A-Za-z]))",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"[\s-][a-z]")


def identifiers(text: str) -> set[str]:
    """Words with a digit and names in CamelCase, snake_case or ALL-CAPS, as written."""
    return {match.group() for match in _TOKEN.finditer(text) if _is_identifier(match.group())}


def invented(text: str, *sources: str) -> list[str]:
    """Identifiers of a text that none of its sources has, in order, as written.

    Case, separators of thousands, a unit stuck to its number, the `v` of a version, spelled numbers and abbreviations
    of what is spelled out make no difference. A number from 1 to 10 that counts things is no identifier; one with a
    unit of measurement is.
    """
    plain = _THOUSANDS.sub("", text)
    candidates = [match for match in _TOKEN.finditer(plain) if _is_identifier(match.group())]
    tokens = dict.fromkeys(match.group() for match in candidates if not _counts(match, plain))
    return [token for token in tokens if not _stands_in(token, _plain(" \n ".join(sources)))]


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
    """The source in lower case, without separators of thousands, with spelled numbers as digits too."""
    spelled = " ".join(_SPELLED[match.group().lower()] for match in _SPELLED_WORD.finditer(source))
    return f"{_THOUSANDS.sub('', source)} {spelled}".lower()


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
    if name.endswith("s") and not _has_digit(token):
        return _stands_in(token[:-1], source)
    parts = [part for part in _PART.findall(token) if part != token and _is_identifier(part)]
    return bool(parts) and all(_stands_in(part, source) for part in parts)

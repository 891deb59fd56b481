"""What every caller of an LLM needs: whether it is served on this machine, and the JSON in what it replied."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from typing import Any

_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)
THOUGHT_ENDS = "</think>"
_DEEPEST = 50
"""Lists and objects inside each other. No answer needs so many, and code that walks through them has its limits."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object in a reply: bare, in a fence, or after a model's thoughts. None if there is no whole one."""
    answer = text.rpartition(THOUGHT_ENDS)[2]
    for candidate in (answer, *_FENCED.findall(answer)):
        start = candidate.find("{")
        found = value_at(candidate, start) if start >= 0 else None
        if found and isinstance(found[0], dict):
            return found[0]
    return None


def value_at(text: str, start: int) -> tuple[Any, int] | None:
    """The JSON value that begins at `start`, and where it ends; None if there is no whole one.

    Whatever a model wrote, the value can be written as strict JSON in UTF-8: what is no finite number (NaN, 1e999) is
    None, half a surrogate pair is a question mark. A value that nests too deep is none.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
        return _writable(value), end
    except (ValueError, RecursionError):  # broken, a number of 5,000 digits; too deep
        return None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


_DECODER = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)


def _writable(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError("nests too deep")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_writable(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_writable(name): _writable(item, depth + 1) for name, item in value.items()}
    return value

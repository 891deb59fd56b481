"""What is taken out of texts before they leave this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.errors import PipelineError

_NEVER = r"(?!\d{4}-\d\d-\d\d\b|\d{1,2}[.]\d{1,2}[.]\d{4}\b|(?:\d{1,3}[.]){3}\d{1,3}\b)"
"""Dates and addresses of machines look like telephone numbers."""
KNOWN = {
    "email": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "phone": r"(?<![\w.])"
    + _NEVER
    + r"(?:\+\d{1,3}[ .-]?)?"
    + r"(?:\((?:0\d{1,4}|\d{3})\)[ .-]?\d{2,4}(?:[ .-]?\d{2,4}){1,4}|\d{2,4}(?:[ .-]\d{2,4}){2,4})(?![\w-])"
    r"|\+\d{9,14}\b",
    "key": r"\b(?:sk|pk|nvapi|ghp|gho|xox[abp]|hf|glpat|AKIA)[-_]?[A-Za-z0-9_-]{16,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
}
_OWN = "regex:"
STAND_IN = re.compile(rf"\[(?:{'|'.join(KNOWN)}|redacted)\]")
"""What a model sees, and quotes, in the place of what was taken out."""


class Redactor:
    """Replaces what `patterns` name (email, phone, key, or `regex:…`) with `[email]` and so on, `[redacted]` for own.

    Raises:
        PipelineError: an unknown name or a pattern that is no regular expression.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [_rule(item) for item in patterns]

    def __call__(self, text: str) -> tuple[str, int]:
        """The text without them, and how many there were."""
        total = 0
        for pattern, stand_in in self._rules:
            text, found = pattern.subn(lambda _, word=stand_in: word, text)
            total += found
        return text, total


def _rule(item: str) -> tuple[re.Pattern[str], str]:
    if item in KNOWN:
        return re.compile(KNOWN[item], re.DOTALL), f"[{item}]"
    if not item.startswith(_OWN):
        raise PipelineError(f"redact: {item!r} is unknown", fix=f"use {', '.join(KNOWN)}, or regex:PATTERN")
    try:
        return re.compile(item.removeprefix(_OWN)), "[redacted]"
    except re.error as error:
        raise PipelineError(f"redact: {item!r} is no regular expression: {error}") from error

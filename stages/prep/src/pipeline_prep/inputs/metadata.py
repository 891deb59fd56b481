"""What is known of a question, as values that every JSON reader accepts."""

from __future__ import annotations

import math
from typing import Any

_DEEPEST = 16


def plain(value: Any, depth: int = 0) -> Any:
    """The value as strict JSON: NaN and infinities are null, halves of surrogate pairs are replaced.

    Dates, decimals and whatever else a parquet file holds become text; lists and objects nested deeper than any
    known field become null.
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if is_writable(value) else value.encode("utf-8", "replace").decode("utf-8")
    if depth == _DEEPEST:
        return None
    if isinstance(value, dict):
        return {plain(str(name)): plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    return plain(str(value))


def is_writable(text: str) -> bool:
    """Whether UTF-8 can hold the text."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

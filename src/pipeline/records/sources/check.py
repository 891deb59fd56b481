"""Checks of single values; every error says where the value stands."""

from __future__ import annotations

import json
import math
from typing import Any

from pipeline.errors import PipelineError

Ref = tuple[str, float]
"""A passage (its id, or `inline_key`) and a teacher's score of it (NaN: none)."""


def kind_of(value: Any) -> str:
    """The value's type as a person who reads JSON would call it."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"{value!r:.40}")


def as_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PipelineError(f"{where} must be an object, found {kind_of(value)}")
    return value


def as_text(value: Any, where: str, name: str) -> str:
    """Text that is not blank and can be written as UTF-8."""
    if not isinstance(value, str):
        raise PipelineError(f"{where}: {name} must be text, found {kind_of(value)}")
    if not value.strip():
        raise PipelineError(f"{where} has an empty {name}")
    return encodable(value, where, name)


def encodable(value: str, where: str, name: str) -> str:
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PipelineError(
                f"{where}: {name} holds half of a surrogate pair at character {error.start}",
                fix="write the file again as UTF-8",
            ) from error
    return value


def as_id(value: Any, where: str, name: str) -> str:
    """An id: text or a whole number."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise PipelineError(f"{where}: {name} must be an id (text or a whole number), found {kind_of(value)}")
    return encodable(str(value), where, name)


def as_score(value: Any, where: str, name: str) -> float:
    """A finite number; null is NaN, which means unknown."""
    if value is None:
        return math.nan
    number = math.inf
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e38:
        number = float(value)
    if not math.isfinite(number):
        raise PipelineError(f"{where}: the score of {name} must be a finite number, found {kind_of(value)}")
    return number


def as_list(value: Any) -> list[Any]:
    """A single value is a list of one; null is an empty list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def references(value: Any, where: str, field: str) -> list[Ref]:
    """Passages by id: an id, `{"id": …, "score": …}`, or a list of these."""
    found = []
    for item in as_list(value):
        entry = item if isinstance(item, dict) else {"id": item}
        if "id" not in entry:
            raise PipelineError(f"{where}: {field} has a passage without id", fix="rows beside a corpus name ids")
        found.append((as_id(entry["id"], where, field), as_score(entry.get("score"), where, field)))
    return found


def as_json(value: Any, where: str) -> Any:
    """A value that strict JSON can hold in UTF-8, so that it can be written again as it was read."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise PipelineError(
            f"{where} holds a value that no file of strict JSON can: {error}",
            fix="replace NaN, Infinity and halves of surrogate pairs",
        ) from error
    return value


def inline_key(text: str, title: str = "") -> str:
    """A passage that is told by its content."""
    return f"{title}\0{text}"

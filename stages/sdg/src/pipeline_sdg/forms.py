"""What answers look like (JSON Schema), and the values in them."""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
YES_OR_NO = {"type": "boolean"}


def object_of(properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object with exactly these properties. Models write them in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def list_of(item: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": least, "maxItems": most}


def one_line(value: Any) -> str:
    """A text in one line; anything that is no text is empty."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def whole_number(value: Any) -> int | None:
    """3, 3.0 and "3" are 3; everything else, true included, is no whole number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value) if len(value) < 10 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None

"""From a model's reply to JSON, as far as there is any."""

from __future__ import annotations

import json
import re
from typing import Any

_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)
_THOUGHT_ENDS = "</think>"


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object in a reply: bare, in a fence, or after a model's thoughts. None if there is no whole one."""
    answer = text.rpartition(_THOUGHT_ENDS)[2]
    for candidate in (answer, *_FENCED.findall(answer)):
        start = candidate.find("{")
        if start < 0:
            continue
        try:
            value, _ = json.JSONDecoder().raw_decode(candidate, start)
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


def salvage_items(text: str, name: str) -> list[Any]:
    """The whole items of the list `name` in a reply that broke off in the middle."""
    opening = re.search(rf'"{re.escape(name)}"\s*:\s*\[', text)
    if not opening:
        return []
    items: list[Any] = []
    position = opening.end()
    while True:
        position += len(text[position:]) - len(text[position:].lstrip(" \t\r\n,"))
        try:
            item, position = json.JSONDecoder().raw_decode(text, position)
        except (json.JSONDecodeError, RecursionError):
            return items
        items.append(item)


def list_in_reply(text: str, name: str) -> tuple[list[Any], bool]:
    """(items of the list `name`, whether the reply was whole)."""
    value = parse_object(text)
    if value is not None and isinstance(value.get(name), list):
        return value[name], True
    return salvage_items(text.rpartition(_THOUGHT_ENDS)[2], name), False

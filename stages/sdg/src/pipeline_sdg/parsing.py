"""From a model's reply to JSON, as far as there is any."""

from __future__ import annotations

import json
import re
from typing import Any

from pipeline.llm import THOUGHT_ENDS, parse_object


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
    return salvage_items(text.rpartition(THOUGHT_ENDS)[2], name), False

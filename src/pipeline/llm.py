"""What every caller of an LLM needs: whether it is served on this machine, and the JSON in what it replied."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL | re.IGNORECASE)
THOUGHT_ENDS = "</think>"


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
        if start < 0:
            continue
        try:
            value, _ = json.JSONDecoder().raw_decode(candidate, start)
        except (ValueError, RecursionError):  # broken, a number of 5,000 digits; too deep
            continue
        if isinstance(value, dict):
            return value
    return None

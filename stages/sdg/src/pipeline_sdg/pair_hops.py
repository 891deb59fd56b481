"""The hops of a multi-hop pair: each one's segments, and what it adds."""

from __future__ import annotations

from typing import Any

from pipeline_sdg.forms import one_line, whole_number

Hop = dict[str, Any]


def segments(value: Any, known: list[int]) -> list[int]:
    """Valid segment ids, each once, in order; empty if any does not exist."""
    numbers = [whole_number(item) for item in value] if isinstance(value, list) else []
    return sorted(set(numbers)) if numbers and set(numbers) <= set(known) else []


def checked_hops(item: dict[str, Any], cited: list[int], known: list[int], least: int, most: int) -> list[Hop] | str:
    """The hops of an answer's pair, tidied, or what is wrong with them.

    Args:
        cited: the pair's own segment ids.
        known: the segment ids of the window.
    """
    listed = item.get("hop_contexts")
    if not isinstance(listed, list) or not all(isinstance(hop, dict) for hop in listed):
        return "hop_contexts must be a list of hops"
    if not least <= len(listed) <= most or whole_number(item.get("hop_count")) != len(listed):
        return (
            f"a multi_hop pair needs {least} to {most} hops, and hop_count must be their number: "
            f"there are {len(listed)}, and hop_count is {item.get('hop_count')!r}"
        )
    hops: list[Hop] = []
    for number, hop in enumerate(listed, 1):
        cleaned = _hop(hop, number, known)
        if isinstance(cleaned, str):
            return cleaned
        twin = next((other["hop_number"] for other in hops if other["segment_ids"] == cleaned["segment_ids"]), None)
        if twin is not None:
            return f"hops {twin} and {number} have the same segments {cleaned['segment_ids']}: each must add others"
        hops.append(cleaned)
    union = sorted({segment for hop in hops for segment in hop["segment_ids"]})
    if union != cited:
        return f"segment_ids must be the union of the hops' segment_ids, {union}, not {cited}"
    return hops


def _hop(hop: dict[str, Any], number: int, known: list[int]) -> Hop | str:
    if whole_number(hop.get("hop_number")) != number:
        return f"hop_number must count 1, 2, 3: number {number} has {hop.get('hop_number')!r}"
    segment_ids, summary = segments(hop.get("segment_ids"), known), one_line(hop.get("summary"))
    if not segment_ids:
        return f"the segment_ids of hop {number} must be some of {known}"
    if not summary:
        return f"the summary of hop {number} is empty"
    return {"hop_number": number, "segment_ids": segment_ids, "summary": summary}

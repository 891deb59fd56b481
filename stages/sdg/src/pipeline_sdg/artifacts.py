"""What a document offers to ask about: eight lists of concepts, entities, processes and the like."""

from __future__ import annotations

from typing import Any

from pipeline_sdg.chunking import Window
from pipeline_sdg.endpoints import ARTIFACTS
from pipeline_sdg.exchange import Exchange, Fault
from pipeline_sdg.llm import Message, Schema
from pipeline_sdg.parsing import parse_object, salvage_items
from pipeline_sdg.templates import render

TYPES = (
    "key_concepts",
    "relationships",
    "themes",
    "entities",
    "processes",
    "insights",
    "technical_terms",
    "contextual_factors",
)
_PARTS = ("text", "description", "importance")

Artifacts = dict[str, list[dict[str, str]]]


def no_artifacts() -> Artifacts:
    return {name: [] for name in TYPES}


def schema(max_per_type: int) -> Schema:
    part = {"type": "string"}
    item = {
        "type": "object",
        "properties": {name: part for name in _PARTS},
        "required": list(_PARTS),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": item, "maxItems": max_per_type} for name in TYPES},
        "required": list(TYPES),
        "additionalProperties": False,
    }


def messages(window: Window, max_per_type: int) -> list[Message]:
    text = render("artifacts", title=window.title, max_per_type=max_per_type, text=window.text)
    return [{"role": "user", "content": text}]


def check(reply: str, max_per_type: int) -> tuple[list[Artifacts], list[Fault]]:
    """The usable artifacts as a list of one, and what was wrong."""
    value = parse_object(reply)
    faults = [] if value is not None else [Fault("the answer is not one whole JSON object")]
    found = no_artifacts()
    for name in TYPES:
        items = (value or {}).get(name, []) if value is not None else salvage_items(reply, name)
        good = [cleaned for item in items if (cleaned := _clean(item))] if isinstance(items, list) else []
        found[name] = good[:max_per_type]
    if not any(found.values()):
        return [], [*faults, Fault("no artifact of any type has a text")]
    return [found], faults


def exchange(window: Window, max_per_type: int) -> Exchange:
    return Exchange(
        ARTIFACTS,
        messages(window, max_per_type),
        schema(max_per_type),
        lambda reply: check(reply, max_per_type),
        wanted=1,
    )


def as_notes(artifacts: Artifacts) -> str:
    """The artifacts as text for the next prompt, the most important first."""
    lines = []
    for name in TYPES:
        lines += [f"- {name}: {item['text']}: {item['description']}" for item in artifacts[name]]
    return "\nNOTES (what is worth asking about)\n" + "\n".join(lines) + "\n" if lines else ""


def merge(parts: list[Artifacts]) -> Artifacts:
    """The artifacts of a document's windows, each text once."""
    merged = no_artifacts()
    for name in TYPES:
        by_text: dict[str, dict[str, str]] = {}
        for item in (item for part in parts for item in part[name]):
            by_text.setdefault(item["text"].casefold(), item)
        merged[name] = list(by_text.values())
    return merged


def _clean(item: Any) -> dict[str, str] | None:
    if not isinstance(item, dict) or not str(item.get("text") or "").strip():
        return None
    return {name: str(item.get(name) or "").strip() for name in _PARTS}

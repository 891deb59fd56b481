"""What a document offers to ask about: eight lists of concepts, entities, processes and the like."""

from __future__ import annotations

from typing import Any

from pipeline_sdg.chunking import Window, lines
from pipeline_sdg.endpoints import ARTIFACTS
from pipeline_sdg.exchange import Exchange, Fault
from pipeline_sdg.forms import TEXT, list_of, object_of, one_line
from pipeline_sdg.llm import Message, Schema
from pipeline_sdg.parsing import parse_object, salvage_items
from pipeline_sdg.templates import DEFAULT, Prompts

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
    item = object_of(dict.fromkeys(_PARTS, TEXT))
    return object_of({name: list_of(item, 0, max_per_type) for name in TYPES})


def messages(window: Window, max_per_type: int, prompts: Prompts = DEFAULT) -> list[Message]:
    several = len(window.members) > 1
    text = prompts.render(
        "artifacts",
        title=window.title,
        max_per_type=max_per_type,
        text="\n".join(lines(window.chunks, window.title)) if several else window.text,
        extra=f"\n{prompts.render('artifacts_bundle')}\n" if several else "",
    )
    return [{"role": "user", "content": text}]


def check(reply: str, max_per_type: int) -> tuple[list[Artifacts], list[Fault]]:
    """The usable artifacts as a list of one, and a fault for everything that was left out."""
    value = parse_object(reply)
    faults = [] if value is not None else [Fault("the answer is not one whole JSON object")]
    found = no_artifacts()
    for name in TYPES:
        items = value.get(name, []) if value is not None else salvage_items(reply, name)
        found[name], wrong = _checked(name, items, max_per_type)
        faults += wrong
    if not any(found.values()):
        return [], [*faults, Fault("no artifact of any type has a text")]
    return [found], faults


def _checked(name: str, items: Any, most: int) -> tuple[list[dict[str, str]], list[Fault]]:
    """The usable items of one type, the first `most` of them, and what is wrong with the others."""
    if not isinstance(items, list):
        return [], [Fault(f"{name} must be a list", items)]
    good, faults = [], []
    for number, item in enumerate(items, 1):
        cleaned = _clean(item)
        if isinstance(cleaned, str):
            faults.append(Fault(f"{name} {number}: {cleaned}", item))
        elif len(good) == most:
            faults.append(Fault(f"{name} {number}: at most {most} are wanted", item))
        else:
            good.append(cleaned)
    return good, faults


def _clean(item: Any) -> dict[str, str] | str:
    """An artifact with all its parts in one line each, or what is wrong with it."""
    if not isinstance(item, dict):
        return f"must be an object with {', '.join(_PARTS)}"
    wrong = [name for name in _PARTS if not isinstance(item.get(name) or "", str)]
    if wrong:
        return f"{wrong[0]} must be a text"
    cleaned = {name: one_line(item.get(name)) for name in _PARTS}
    return cleaned if cleaned["text"] else "its text is empty"


def exchange(window: Window, max_per_type: int, prompts: Prompts = DEFAULT) -> Exchange:
    return Exchange(
        ARTIFACTS,
        messages(window, max_per_type, prompts),
        schema(max_per_type),
        lambda reply: check(reply, max_per_type),
        wanted=1,
    )


def as_notes(artifacts: Artifacts) -> str:
    """The artifacts as text for the next prompt: of each type the most important first, with why it matters."""
    lines = [_note(name, item) for name in TYPES for item in artifacts[name]]
    return "\nNOTES (what is worth asking about, and why)\n" + "\n".join(lines) + "\n" if lines else ""


def _note(name: str, item: dict[str, str]) -> str:
    why = f" ({item['importance']})" if item["importance"] else ""
    return f"- {name}: {item['text']}: {item['description']}{why}"


def merge(parts: list[Artifacts]) -> Artifacts:
    """The artifacts of a document's windows, each text once."""
    merged = no_artifacts()
    for name in TYPES:
        by_text: dict[str, dict[str, str]] = {}
        for item in (item for part in parts for item in part[name]):
            by_text.setdefault(item["text"].casefold(), item)
        merged[name] = list(by_text.values())
    return merged

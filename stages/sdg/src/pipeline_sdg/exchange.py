"""One question to a model: ask, check the answer, say once what was wrong, keep what is good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline_sdg.journal import Reply
from pipeline_sdg.llm import Caller, CallFailed, Message, Schema
from pipeline_sdg.templates import render

_TOLD_AT_MOST = 12


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an answer. `item` is the part that cannot be used, if it is one part."""

    reason: str
    item: Any = None


Check = Callable[[str], tuple[list[Any], list[Fault]]]


@dataclass(frozen=True)
class Exchange:
    """A request: who is asked, what, the answer's form, and how to tell good parts (the first `wanted` are kept)."""

    role: str
    messages: list[Message]
    schema: Schema
    check: Check
    wanted: int
    max_tokens: int | None = None
    same: Callable[[Any], Any] = repr
    """What makes two parts the same, so that a repaired answer does not bring them twice."""


@dataclass
class Outcome:
    """The good parts, the faults of what was left out, and the last reply (None if no call succeeded)."""

    good: list[Any] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    reply: Reply | None = None

    @property
    def unanswered(self) -> bool:
        """No answer came at all: worth another try later."""
        return self.reply is None


async def ask(caller: Caller, exchange: Exchange, repair: bool) -> Outcome:
    """Ask, with at most one repair turn; parts of the first answer that were good are never lost by the second."""
    try:
        reply = await caller.chat(exchange.role, exchange.messages, exchange.schema, exchange.max_tokens)
    except CallFailed as error:
        return Outcome(faults=[Fault(f"call failed: {error}")])
    good, faults = exchange.check(reply.text)
    outcome = Outcome(good[: exchange.wanted], faults, reply)
    if len(good) >= exchange.wanted or not repair:
        return outcome
    return await _repair(caller, exchange, outcome)


async def _repair(caller: Caller, exchange: Exchange, first: Outcome) -> Outcome:
    assert first.reply is not None
    told = [f"- {fault.reason}" for fault in first.faults[:_TOLD_AT_MOST]]
    if first.reply.finish_reason == "length":
        told.insert(0, "- it was cut off because it was too long: be briefer")
    turn = [
        *exchange.messages,
        {"role": "assistant", "content": first.reply.text},
        {"role": "user", "content": render("repair", problems="\n".join(told))},
    ]
    caller.usage[exchange.role].repair_turns += 1
    try:
        reply = await caller.chat(exchange.role, turn, exchange.schema, exchange.max_tokens)
    except CallFailed as error:
        return Outcome(first.good, [*first.faults, Fault(f"the repair turn failed: {error}")], first.reply)
    good, faults = exchange.check(reply.text)
    merged: dict[Any, Any] = {}
    for part in [*good, *first.good]:
        merged.setdefault(exchange.same(part), part)
    return Outcome(list(merged.values())[: exchange.wanted], faults, reply)

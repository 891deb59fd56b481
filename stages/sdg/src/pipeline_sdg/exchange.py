"""One question to a model: ask, check the answer, say once what was wrong, keep what is good."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline_sdg.journal import Reply
from pipeline_sdg.llm import Caller, CallFailed, Message, Schema
from pipeline_sdg.templates import DEFAULT, Prompts

_TOLD_AT_MOST = 12


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an answer. `item` is the part that cannot be used, if it is one part."""

    reason: str
    item: Any = None
    remark: bool = False
    """About the answer as a whole: no part of it is lost."""


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
    choose: Callable[[list[Any]], list[Any]] = list
    """The parts in the order in which they are kept, where there are more than `wanted`."""
    lacking: Callable[[list[Any]], list[Fault]] = lambda _: []
    """What the parts that are kept lack as a whole: worth a repair turn, but none of them is given up for it."""


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


async def ask(caller: Caller, exchange: Exchange, repair: bool, prompts: Prompts = DEFAULT) -> Outcome:
    """Ask, with at most one repair turn; parts of the first answer that were good are never lost by the second."""
    try:
        reply = await caller.chat(exchange.role, exchange.messages, exchange.schema, exchange.max_tokens)
    except CallFailed as error:
        return Outcome(faults=[Fault(f"call failed: {error}")])
    good, faults = exchange.check(reply.text)
    good = exchange.choose(good)[: exchange.wanted]
    lacking = exchange.lacking(good)
    outcome = Outcome(good, [*faults, *lacking], reply)
    if not repair or (len(good) == exchange.wanted and not lacking):
        return outcome
    return await _repair(caller, exchange, outcome, prompts)


async def _repair(caller: Caller, exchange: Exchange, first: Outcome, prompts: Prompts) -> Outcome:
    assert first.reply is not None
    told = [f"- {fault.reason}" for fault in first.faults[:_TOLD_AT_MOST]]
    if first.reply.finish_reason == "length":
        told.insert(0, "- it was cut off because it was too long: be briefer")
    if "{" not in first.reply.text:  # the server took the form of the answer and did not tell the model
        told.insert(0, f"- it must be one JSON object that follows this JSON Schema: {json.dumps(exchange.schema)}")
    turn = [
        *exchange.messages,
        {"role": "assistant", "content": first.reply.text},
        {"role": "user", "content": prompts.render("repair", problems="\n".join(told))},
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
    kept = exchange.choose(list(merged.values()))[: exchange.wanted]
    return Outcome(kept, [*faults, *exchange.lacking(kept)], reply)

"""One question to a model: ask, check the answer, say once what was wrong, keep what is good."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline_sdg.journal import Reply
from pipeline_sdg.llm import Caller, CallFailed, Message, Schema
from pipeline_sdg.templates import DEFAULT, Prompts

_TOLD_AT_MOST = 12


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an answer. `item` is the part that is not used, if it is one part; `reply` is the answer."""

    reason: str
    item: Any = None
    remark: bool = False
    """About the answer as a whole: no part of it is lost."""
    reply: Reply | None = None


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
    """The good parts, the faults of what was left out, and the last reply (None if no call succeeded).

    Parts that are no good count as mended, and are no fault, if the repair turn brought more good ones.
    """

    good: list[Any] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    reply: Reply | None = None

    @property
    def unanswered(self) -> bool:
        """No answer came at all: worth another try later."""
        return self.reply is None


@dataclass(frozen=True)
class _Answer:
    """A reply and what its check found."""

    reply: Reply
    good: list[Any]
    faults: list[Fault]


async def ask(caller: Caller, exchange: Exchange, repair: bool, prompts: Prompts = DEFAULT) -> Outcome:
    """Ask, with at most one repair turn; parts of the first answer that were good are never lost by the second."""
    try:
        first = await _answer(caller, exchange, exchange.messages)
    except CallFailed as error:
        return Outcome(faults=[Fault(f"call failed: {error}")])
    outcome = _outcome(exchange, first)
    lacking = exchange.lacking(outcome.good)
    if not repair or (len(outcome.good) == exchange.wanted and not lacking):
        return outcome
    caller.usage[exchange.role].repair_turns += 1
    turn = _repair_turn(exchange, first.reply, [*first.faults, *lacking], prompts)
    try:
        second = await _answer(caller, exchange, turn)
    except CallFailed as error:
        outcome.faults.append(Fault(f"the repair turn failed: {error}"))
        return outcome
    return _outcome(exchange, second, first)


async def _answer(caller: Caller, exchange: Exchange, messages: list[Message]) -> _Answer:
    reply = await caller.chat(exchange.role, messages, exchange.schema, exchange.max_tokens)
    good, faults = exchange.check(reply.text)
    return _Answer(reply, good, [replace(fault, reply=reply) for fault in faults])


def _repair_turn(exchange: Exchange, reply: Reply, faults: Sequence[Fault], prompts: Prompts) -> list[Message]:
    told = [f"- {fault.reason}" for fault in faults[:_TOLD_AT_MOST]]
    if reply.finish_reason == "length":
        told.insert(0, "- it was cut off because it was too long: be briefer")
    if "{" not in reply.text:  # the server took the form of the answer and did not tell the model
        told.insert(0, f"- it must be one JSON object that follows this JSON Schema: {json.dumps(exchange.schema)}")
    return [
        *exchange.messages,
        {"role": "assistant", "content": reply.text},
        {"role": "user", "content": prompts.render("repair", problems="\n".join(told))},
    ]


def _outcome(exchange: Exchange, last: _Answer, first: _Answer | None = None) -> Outcome:
    """What is kept of the last answer and, where it leaves room, of the first one."""
    parts: dict[Any, tuple[Any, Reply]] = {}
    for answer in (last, first) if first else (last,):
        for part in answer.good:
            parts.setdefault(exchange.same(part), (part, answer.reply))
    kept = exchange.choose([part for part, _ in parts.values()])[: exchange.wanted]
    keys = {exchange.same(part) for part in kept}
    surplus = [
        Fault("more than were asked for", part, reply=reply) for key, (part, reply) in parts.items() if key not in keys
    ]
    unmended = []
    if first and len(kept) <= min(len(first.good), exchange.wanted):
        noted = [None, *(fault.item for fault in last.faults)]
        unmended = [fault for fault in first.faults if fault.item not in noted]
    lacking = [replace(fault, reply=last.reply) for fault in exchange.lacking(kept)]
    return Outcome(kept, [*last.faults, *lacking, *surplus, *unmended], last.reply)

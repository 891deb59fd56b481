"""The ledger of one exchange: nothing that a model wrote is lost without a fault that holds it."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from pipeline_sdg.endpoints import QA
from pipeline_sdg.exchange import Exchange, Fault, Outcome, ask
from pipeline_sdg.journal import Reply


class Answers:
    """A caller that gives these replies in turn."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.asked: list[list[dict[str, str]]] = []
        self.usage = {QA: SimpleNamespace(repair_turns=0)}

    async def chat(self, role: str, messages: Any, schema: Any, max_tokens: int | None = None) -> Reply:
        self.asked.append(messages)
        return Reply(self.replies.pop(0), "stop", 1, 1)


def check(reply: str) -> tuple[list[str], list[Fault]]:
    items = json.loads(reply)
    return [item for item in items if "bad" not in item], [Fault(f"{i} is bad", i) for i in items if "bad" in i]


def lacking(kept: list[str]) -> list[Fault]:
    return [] if "z" in kept else [Fault("no z", remark=True)]


def run(*replies: str, repair: bool = True, **changes: Any) -> tuple[Outcome, Answers]:
    caller = Answers(*replies)
    exchange = Exchange(QA, [{"role": "user", "content": "?"}], {}, check, **{"wanted": 2, **changes})
    return asyncio.run(ask(caller, exchange, repair)), caller


def faults(outcome: Outcome) -> list[tuple[str, Any, str | None]]:
    return [(fault.reason, fault.item, fault.reply and fault.reply.text) for fault in outcome.faults]


@pytest.mark.parametrize("repair", [True, False])
def test_good_parts_beyond_what_was_asked_for_are_noted(repair: bool) -> None:
    answer = '["a", "b", "c", "bad"]'
    outcome, caller = run(answer, repair=repair)
    assert outcome.good == ["a", "b"] and len(caller.asked) == 1
    assert faults(outcome) == [("bad is bad", "bad", answer), ("more than were asked for", "c", answer)]


def test_what_a_better_answer_puts_aside_is_noted_with_its_own_reply() -> None:
    first, second = '["a", "b"]', '["y", "z"]'
    outcome, caller = run(first, second, lacking=lacking)
    assert outcome.good == ["y", "z"] and caller.usage[QA].repair_turns == 1
    assert faults(outcome) == [("more than were asked for", name, first) for name in "ab"]


def test_surplus_is_no_fault_that_the_model_is_told() -> None:
    outcome, caller = run('["a", "b", "c"]', '["z"]', lacking=lacking)
    assert outcome.good == ["z", "a"]
    told = caller.asked[1][-1]["content"]
    assert "- no z" in told and "more than" not in told
    assert [(fault.reason, fault.item) for fault in outcome.faults] == [
        ("more than were asked for", "b"),
        ("more than were asked for", "c"),
    ]


def test_bad_parts_stay_noted_where_the_repair_brings_nothing_better() -> None:
    first, second = '["bad1", "a", "bad3", "bad2"]', '["bad3"]'
    outcome, _ = run(first, second)
    assert outcome.good == ["a"] and outcome.reply is not None and outcome.reply.text == second
    assert faults(outcome) == [
        ("bad3 is bad", "bad3", second),
        ("bad1 is bad", "bad1", first),
        ("bad2 is bad", "bad2", first),
    ]


def test_bad_parts_count_as_mended_where_it_brings_more_good_ones() -> None:
    outcome, _ = run('["bad1", "a"]', '["a", "c"]')
    assert outcome.good == ["a", "c"] and outcome.faults == []

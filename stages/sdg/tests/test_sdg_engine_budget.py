"""The budget that ends a run: who waits, who is told, and what is left behind."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_sdg.calls.budget import Budget, BudgetReached
from pipeline_sdg.calls.usage import Prices
from pipeline_sdg.endpoints import QA
from pipeline_sdg.generation import each
from pipeline_sdg.llm import Caller, CallOptions

SCHEMA = {"type": "object", "properties": {"ok": {"type": "string"}}}


def ask(caller: Any, text: str = "hello") -> Any:
    return caller.chat(QA, [{"role": "user", "content": text}], SCHEMA)


async def ask_many(caller: Any, number: int = 25) -> None:
    await each(range(number), lambda item: ask(caller, f"{item} " + "x" * 400), 3)


@pytest.mark.parametrize(
    "options", [CallOptions(max_tokens_total=800), CallOptions(max_cost=0.0008, prices={"input": 1.0, "output": 1.0})]
)
def test_a_budget_ends_the_run_cleanly_and_a_larger_one_goes_on(
    calling: Any, endpoint: Any, options: CallOptions
) -> None:
    with pytest.raises(BudgetReached, match="is reached") as caught:
        calling(ask_many, endpoint.url, options)
    paid = endpoint.calls.total()
    assert paid >= 1 and 15 * paid <= 800
    assert "saved" in (caught.value.fix or "")
    with pytest.raises(BudgetReached):
        calling(ask_many, endpoint.url, CallOptions(max_tokens_total=15 * paid))  # what is in the journal counts
    assert endpoint.calls.total() == paid
    calling(ask_many, endpoint.url)
    assert endpoint.calls.total() == 25


def budget_of(limit: int) -> Budget:
    return Budget(Prices({}, [QA]), {QA: (100, 100)}, [QA], max_tokens_total=limit)


def test_a_call_that_does_not_fit_waits_for_those_under_way() -> None:
    async def work() -> None:
        budget = budget_of(2200)
        first = await budget.reserve(QA, 300, None)
        await budget.reserve(QA, 300, None)
        waiting = [asyncio.create_task(budget.reserve(QA, 300, None)) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting) and budget.tokens == 200 + 800 + 800
        budget.settle(QA, first, (300, 20))  # room for one of the two
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True, False]
        assert budget.tokens == 200 + 320 + 800 + 800
        waiting[1].cancel()

    asyncio.run(work())


def test_when_nothing_is_under_way_all_that_wait_get_the_error() -> None:
    async def work() -> None:
        budget = budget_of(1100)
        held = await budget.reserve(QA, 300, None)
        waiting = [asyncio.create_task(budget.reserve(QA, 300, None)) for _ in range(5)]
        await asyncio.sleep(0)
        budget.settle(QA, held, (300, 500))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(item) for item in results] == [BudgetReached] * 5
        assert "1,000 tokens used in this run folder, the next call may need 800" in str(results[0])
        with pytest.raises(BudgetReached):  # a smaller one would fit, but the run has come to its end
            await budget.reserve(QA, 1, 1)

    asyncio.run(work())


def test_who_is_cancelled_while_waiting_holds_nothing() -> None:
    async def work() -> None:
        budget = budget_of(1100)
        held = await budget.reserve(QA, 300, None)
        waiting = asyncio.create_task(budget.reserve(QA, 300, None))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        budget.settle(QA, held)
        assert budget.tokens == 200 and await budget.reserve(QA, 300, None) == (300, 500)

    asyncio.run(work())


def test_a_budget_that_suffices_is_enough_however_many_calls_are_under_way(calling: Any, endpoint: Any) -> None:
    """Each call is thought to need 600 tokens and needs 15: all fit, but never 20 at once."""

    async def work(caller: Caller) -> None:
        await each(range(20), lambda item: ask(caller, f"{item} " + "x" * 397), 20)

    calling(work, endpoint.url, CallOptions(max_tokens_total=1300, parallel=20))
    assert endpoint.calls.total() == 20


def test_a_run_that_a_budget_ends_leaves_its_usage(stage: Any, endpoint: Any, tmp_path: Path) -> None:
    def usage() -> dict[str, Any]:
        return json.loads((tmp_path / "run" / "stage0_sdg" / "usage.json").read_text())

    prices = "prices={input: 10, output: 100}"
    with pytest.raises(BudgetReached):
        stage(prices, "max_tokens_total=900")
    found, paid = usage(), endpoint.calls.total()
    assert found["complete"] is False and found["total"]["calls_made"] == paid > 0
    assert found["total"]["cost"] == pytest.approx(paid * (10 * 10 + 5 * 100) / 1e6)
    stage(prices)
    assert usage()["complete"] is True and usage()["total"]["calls_made"] == endpoint.calls.total() - paid

"""How fast an endpoint is asked, and when it is given up."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pipeline_sdg.calls import channel, pacing
from pipeline_sdg.calls.breaker import FAILURES_IN_A_ROW, WINDOW, Breaker
from pipeline_sdg.calls.pacing import ANSWERS_PER_SLOT, Limiter, backoff, seconds_of_retry_after
from pipeline_sdg.endpoints import QA
from pipeline_sdg.generation import each
from pipeline_sdg.llm import CallFailed, CallOptions

from pipeline.errors import PipelineError

SCHEMA = {"type": "object", "properties": {"ok": {"type": "string"}}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr(pacing.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def test_an_endpoint_that_takes_fewer_calls_than_we_would_make_is_asked_as_many_as_it_takes(
    clock: Callable[[float], None],
) -> None:
    takes, limiter = 4, Limiter(16)
    for _ in range(12):
        clock(2.1)
        asked = limiter.allowed
        if asked > takes:
            limiter.overloaded(2.0)
        for _ in range(min(takes, asked)):
            limiter.succeeded()
    assert takes - 1 <= limiter.allowed <= takes + 1


def test_an_overload_takes_a_quarter_and_answers_give_slots_back(clock: Callable[[float], None]) -> None:
    limiter = Limiter(16)
    for _ in range(ANSWERS_PER_SLOT):
        limiter.succeeded()
    for _ in range(5):
        limiter.overloaded(2.0)  # calls that were under way tell of the same trouble
    assert limiter.allowed == 12
    for _ in range(ANSWERS_PER_SLOT - 1):
        limiter.succeeded()
    assert limiter.allowed == 12
    limiter.succeeded()
    assert limiter.allowed == 13
    clock(2.5)
    for _ in range(40):
        limiter.overloaded(2.0)
        clock(2.5)
    assert limiter.allowed == 1  # never less


def test_after_a_storm_slots_come_back_with_every_answer(clock: Callable[[float], None]) -> None:
    limiter = Limiter(64)
    for _ in range(ANSWERS_PER_SLOT):
        limiter.succeeded()
    for _ in range(10):
        limiter.overloaded(2.0)
        clock(2.5)
    assert limiter.allowed < 5
    for _ in range(48):
        limiter.succeeded()
    assert limiter.allowed == 48  # three quarters of what was fine, then slowly on
    for _ in range(16 * ANSWERS_PER_SLOT):
        limiter.succeeded()
    assert limiter.allowed == 64


def test_slots_are_held_and_handed_on() -> None:
    async def work() -> list[int]:
        limiter, seen = Limiter(3), []

        async def one() -> None:
            async with limiter:
                seen.append(limiter.running)
                await asyncio.sleep(0.001)

        waiting = [asyncio.create_task(one()) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[5].cancel()  # one that waits
        await asyncio.gather(*waiting, return_exceptions=True)
        assert limiter.running == 0
        return seen

    seen = asyncio.run(work())
    assert len(seen) == 19 and max(seen) == 3


def test_after_an_overload_nothing_begins_for_a_while() -> None:
    async def work() -> float:
        limiter = Limiter(4)
        limiter.overloaded(0.1)
        begun = time.monotonic()
        async with limiter:
            return time.monotonic() - begun

    assert asyncio.run(work()) >= 0.09


def test_calls_a_minute_are_spread() -> None:
    async def work() -> float:
        limiter = Limiter(8, per_minute=1200)
        begun = time.monotonic()
        for _ in range(4):
            async with limiter:
                pass
        return time.monotonic() - begun

    assert asyncio.run(work()) >= 0.145  # three waits of 50 ms


def test_who_waits_for_a_given_up_endpoint_is_told() -> None:
    async def work() -> list[Any]:
        limiter = Limiter(1)
        limiter.overloaded(1000.0)

        async def one() -> None:
            async with limiter:
                pass

        waiting = [asyncio.create_task(one()), asyncio.create_task(limiter.pause(1000.0))]
        await asyncio.sleep(0)
        limiter.stop(PipelineError("given up"))
        waiting.append(asyncio.create_task(one()))
        return await asyncio.gather(*waiting, return_exceptions=True)

    results = asyncio.run(work())
    assert [str(item) for item in results] == ["given up", "None", "given up"]


def test_waits_grow_up_to_a_minute_and_never_agree() -> None:
    assert 0.4 <= backoff(0) <= 0.6 and 1.6 <= backoff(2) <= 2.4
    assert 48 <= backoff(30) <= 72
    assert len({backoff(1) for _ in range(20)}) > 10


def test_retry_after_is_seconds_a_date_or_nothing() -> None:
    assert seconds_of_retry_after({"retry-after": "7"}) == 7
    assert seconds_of_retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (seconds_of_retry_after({"retry-after": later}) or 0) <= 100
    assert seconds_of_retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "-3"}, {"retry-after": "nan"}):
        assert seconds_of_retry_after(nothing) is None


def test_an_endpoint_is_broken_after_ten_in_a_row_or_half_of_a_hundred() -> None:
    breaker = Breaker()
    breaker.succeeded()
    for _ in range(FAILURES_IN_A_ROW - 1):
        assert breaker.failed() is None
    assert breaker.failed() == "10 calls in a row failed"
    breaker.succeeded()
    assert breaker.proven and breaker.failed() is None
    breaker = Breaker()
    reasons = []
    for number in range(WINDOW + 1):
        if number % 2:
            breaker.succeeded()
        else:
            reasons.append(breaker.failed())
    assert reasons[-1] is None  # exactly half
    assert breaker.failed() == "51 of the last 100 calls failed"
    never = Breaker()
    assert [never.failed() for _ in range(3)] == [None, None, "3 calls in a row failed"] and not never.proven


def ask(caller: Any, text: str = "hello") -> Any:
    return caller.chat(QA, [{"role": "user", "content": text}], SCHEMA)


def test_a_storm_of_429_loses_no_call(calling: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "COOLDOWN", 0.005)
    endpoint.content = lambda role, body: "{}"
    endpoint.misbehave = lambda body, number: (429, {}, "{}") if 2 <= number <= 30 else None

    async def work(caller: Any) -> Any:
        async def one(number: int) -> None:
            await ask(caller, str(number))

        await each(range(30), one, 8)
        return caller.usage[QA]

    usage = calling(work, endpoint.url, CallOptions(parallel=8), max_retries=0)
    assert (usage.calls_made, usage.calls_failed, usage.rate_limited) == (30, 0, 29)


def test_a_rate_limit_that_never_ends_is_said(calling: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "COOLDOWN", 0.01)
    monkeypatch.setattr(channel, "PATIENCE", 0.1)
    endpoint.misbehave = lambda body, number: (429, {}, "{}")
    with pytest.raises(PipelineError, match="has no room for us: HTTP 429"):
        calling(ask, endpoint.url)


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (429, {"Retry-After": "86400"}, "{}", "no room for us, to be waited for 86400 s"),
        (503, {"Retry-After": "86400"}, "{}", "no room for us, to be waited for 86400 s"),
        (429, {}, '{"error": {"code": "insufficient_quota"}}', "no credit"),
        (402, {}, "{}", "no credit"),
    ],
)
def test_a_wait_of_a_day_or_an_empty_account_is_not_waited_out(
    calling: Any, endpoint: Any, status: int, headers: dict[str, str], body: str, said: str
) -> None:
    endpoint.misbehave = lambda request, number: (status, headers, body) if number > 1 else None

    async def work(caller: Any) -> None:
        await ask(caller, "first")
        await each(["a", "b", "c", "d"], lambda text: ask(caller, text), 4)

    with pytest.raises(PipelineError, match=said):
        calling(work, endpoint.url, CallOptions(parallel=2))


def test_a_server_that_went_away_is_tried_again_and_then_given_up(
    calling: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "BACKOFF", 0.01)

    async def work(caller: Any) -> int:
        await ask(caller, "first")
        endpoint.close()
        for number in range(FAILURES_IN_A_ROW - 1):
            with pytest.raises(CallFailed):
                await ask(caller, str(number))
        with pytest.raises(PipelineError, match="10 calls in a row failed, the last with: cannot reach"):
            await ask(caller, "last")
        return caller.usage[QA].retries

    endpoint.misbehave = lambda body, number: (200, {"Connection": "close"}, endpoint.chat("{}"))
    assert calling(work, endpoint.url, max_retries=1) == FAILURES_IN_A_ROW

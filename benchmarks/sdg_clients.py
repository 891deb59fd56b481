"""What sdg.py measures, each in a process of its own: our engine, the bare openai client, the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count, takewhile
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from pipeline_sdg.calls.formats import SCHEMA, with_format
from pipeline_sdg.endpoints import QA, Endpoint
from pipeline_sdg.journal import Journal, Reply, call_key
from pipeline_sdg.llm import Caller, CallOptions, Sampling

Result = TypeVar("Result")
Call = Callable[[int], Awaitable[object]]

_ANSWER_FORM = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
_PROMPT = "x " * 1500
_SAMPLING = Sampling(seed=1)
_TIMEOUT, _RETRIES = 60.0, 3
_WAITING = 16
"""Callers beyond the limit: the engine, not the load, has to keep it."""


@dataclass(frozen=True)
class Load:
    """`calls` to `url`, `limit` at once; the journal is written into `folder`."""

    url: str
    calls: int
    limit: int
    folder: Path


@dataclass(frozen=True)
class Cost:
    """Wall-clock and CPU seconds of all calls, all threads included."""

    seconds: float
    cpu: float


def apart(work: Callable[..., Result], *arguments: object) -> Result:
    """`work(*arguments)` in a fresh process."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def call_ours(load: Load) -> Cost:
    """All calls through our engine: keys, journal, pacing, budget and usage included."""
    return asyncio.run(_with_engine(load, lambda chat: _timed(chat, iter(range(load.calls)), load.limit + _WAITING)))


def call_for(load: Load, seconds: float) -> Cost:
    """Calls through our engine, the next begun as soon as it lets us, for so many seconds."""
    return asyncio.run(_with_engine(load, lambda chat: _timed(chat, _numbers_for(seconds), load.limit + _WAITING)))


def call_openai(load: Load) -> Cost:
    """The same requests through `AsyncOpenAI` in its defaults, and nothing else."""
    from openai import AsyncOpenAI  # its import must not weigh on our own process

    async def work() -> Cost:
        async with AsyncOpenAI(base_url=load.url, api_key="none") as client:

            async def chat(number: int) -> None:
                body = {"model": "m", "messages": _messages(number), **_SAMPLING.body()}
                await client.chat.completions.create(**with_format(body, SCHEMA, _endpoint(load), _ANSWER_FORM))

            await chat(-1)
            return await _timed(chat, iter(range(load.calls)), load.limit)

    return asyncio.run(work())


def keep_answers(folder: Path, rate: int, seconds: float, grouped: bool) -> tuple[float, list[float]]:
    """Journal `rate` answers a second.

    Returns:
        CPU seconds of each, less what the same loop takes without a journal; and how long each waited, in order of
        size. `grouped`: answers share commits, as in a run; else each has a commit of its own.
    """
    return asyncio.run(_keep_answers(folder, rate, round(rate * seconds), grouped))


async def _keep_answers(folder: Path, rate: int, answers: int, grouped: bool) -> tuple[float, list[float]]:
    reply = Reply(_PROMPT, "stop", 750, 375)

    async def nothing(number: int) -> None: ...

    with Journal(folder / f"journal-{grouped}.sqlite") as journal:

        async def keep(number: int) -> None:
            if grouped:
                await journal.keep(QA, "m", {call_key(number=number): reply})
            else:
                journal.put(call_key(number=number), QA, "m", reply)

        bare, _ = await _paced(nothing, rate, answers)
        cpu, waits = await _paced(keep, rate, answers)
    return cpu - bare, waits


async def _paced(call: Call, rate: int, calls: int) -> tuple[float, list[float]]:
    waits: list[float] = []

    async def one(number: int) -> None:
        await asyncio.sleep(number / rate)
        begun = time.perf_counter()
        await call(number)
        waits.append(time.perf_counter() - begun)

    cpu = time.process_time()
    await asyncio.gather(*map(one, range(calls)))
    return (time.process_time() - cpu) / calls, sorted(waits)


async def _with_engine(load: Load, work: Callable[[Call], Awaitable[Result]]) -> Result:
    options = CallOptions(parallel=load.limit)
    with Journal(load.folder / "journal.sqlite") as journal:
        async with Caller([_endpoint(load)], journal, _SAMPLING, _TIMEOUT, _RETRIES, options) as caller:

            async def chat(number: int) -> None:
                await caller.chat(QA, _messages(number), _ANSWER_FORM)

            await chat(-1)  # finds out what the endpoint takes
            return await work(chat)


async def _timed(call: Call, numbers: Iterator[int], callers: int) -> Cost:
    async def caller() -> None:
        for number in numbers:
            await call(number)

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return Cost(time.perf_counter() - begun, time.process_time() - cpu)


def _numbers_for(seconds: float) -> Iterator[int]:
    end = time.perf_counter() + seconds
    return takewhile(lambda _: time.perf_counter() < end, count())


def _endpoint(load: Load) -> Endpoint:
    return Endpoint(QA, "local", "m", load.url)


def _messages(number: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"{number} {_PROMPT}"}]

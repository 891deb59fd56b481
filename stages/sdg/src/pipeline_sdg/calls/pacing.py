"""How fast an endpoint is asked: additive increase, multiplicative decrease; waits between tries.

The rule is TCP's (Chiu and Jain, 1989, https://doi.org/10.1016/0169-7552(89)90019-6), with the figures of NeMo Data
Designer: x0.75 at an overload, one more slot after 25 answers, 2 s without new calls.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

DECREASE = 0.75
ANSWERS_PER_SLOT = 25
COOLDOWN = 2.0
BACKOFF, LONGEST_BACKOFF, JITTER = 0.5, 60.0, 0.2
"""Seconds before the first repeat, doubled each time up to the longest; a random fifth more or less, so that calls
that failed together do not come back together."""


class Limiter:
    """Slots for calls to one endpoint; an async context manager holds one of them.

    `most`: calls at once; `per_minute`: calls begun a minute, evenly spread, or None.
    """

    def __init__(self, most: int, per_minute: int | None = None) -> None:
        self.allowed = self._most = most
        self.running = 0
        self._calm = most
        """Slots that were fine before the trouble began: up to there every answer gives one back (slow start), so
        that a storm that drove us far down is made good in seconds, not minutes."""
        self._answers = 0
        self._opens = self._turn = 0.0
        self._lowered = -math.inf
        self._spacing = 60 / per_minute if per_minute else 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._pausing: deque[asyncio.Future[None]] = deque()
        self._end: Exception | None = None

    async def __aenter__(self) -> None:
        while self._end is None and (delay := self._delay()) != 0:
            await self._wait(delay, self._waiting)
        if self._end:
            raise self._end
        self.running += 1
        self._turn = max(self._turn, time.monotonic()) + self._spacing

    async def __aexit__(self, *_: object) -> None:
        self.running -= 1
        self._wake()

    def succeeded(self) -> None:
        self._answers += 1
        if self.allowed < self._most and (self.allowed < self._calm or self._answers % ANSWERS_PER_SLOT == 0):
            self.allowed += 1
            self._wake()

    def overloaded(self, pause: float) -> None:
        """Fewer slots, and no new call for `pause` seconds. What comes in within COOLDOWN is the same trouble."""
        now = time.monotonic()
        if now >= self._lowered + COOLDOWN:
            self._lowered = now
            lower = max(1, math.floor(self.allowed * DECREASE))
            if self._answers:  # some came, so this many at once are too many; in a storm none come
                self._calm = lower
            self.allowed, self._answers = lower, 0
        self._opens = max(self._opens, now + pause)

    def stop(self, error: Exception) -> None:
        """The endpoint is given up: calls that wait for their turn end with `error` at once."""
        self._end = self._end or error
        for waiter in (*self._waiting, *self._pausing):
            _done(waiter)

    async def pause(self, seconds: float) -> None:
        """Wait before another try, holding no slot; ends early when the endpoint is given up."""
        if self._end is None:
            await self._wait(seconds, self._pausing)

    def _delay(self) -> float | None:
        """Seconds until a call may begin; None: when another one has ended."""
        if self.running >= self.allowed:
            return None
        return max(0.0, max(self._opens, self._turn) - time.monotonic())

    async def _wait(self, delay: float | None, queue: deque[asyncio.Future[None]]) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        queue.append(waiter)
        timer = loop.call_later(delay, _done, waiter) if delay is not None else None
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done():
                self._wake()  # what woke us was meant for somebody who goes on
            raise
        finally:
            if timer:
                timer.cancel()
            if waiter in queue:
                queue.remove(waiter)

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


def _done(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def backoff(attempt: int) -> float:
    """Seconds before the repeat after the `attempt`-th failure (from 0)."""
    return min(LONGEST_BACKOFF, BACKOFF * 2**attempt) * random.uniform(1 - JITTER, 1 + JITTER)


def seconds_of_retry_after(headers: Mapping[str, str]) -> float | None:
    """What the server asks for: `Retry-After` in seconds or as a date, or `Retry-After-Ms`; None if nothing usable."""
    try:
        if "retry-after-ms" in headers:
            return _sane(float(headers["retry-after-ms"]) / 1000)
        return _sane(float(headers["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        return _until(headers["retry-after"]) if "retry-after" in headers else None


def _until(date: str) -> float | None:
    try:
        when = parsedate_to_datetime(date)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _sane(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and seconds >= 0 else None

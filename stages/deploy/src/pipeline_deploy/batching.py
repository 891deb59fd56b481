"""Concurrent requests share the processor: their texts are merged into batches, one batch is computed at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.retrieval.batching import token_batches

Tokens = list[list[int]]
_MOST_PADDING = 0.5
"""Share of a merged batch that may be padding; beyond it, merging costs more than it saves."""


class Batcher:
    """Feeds a model that computes one batch at a time.

    A request hands in one batch after another, so a long one never keeps short ones waiting for more than a batch; what
    arrives while a batch is computed is merged into the next. Nothing waits when the model is idle.
    """

    def __init__(self, forward: Callable[[Tokens], np.ndarray], max_tokens: int) -> None:
        self._forward, self._max_tokens = forward, max_tokens
        self._waiting: deque[tuple[Tokens, asyncio.Future[np.ndarray]]] = deque()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._running: asyncio.Task[None] | None = None

    async def compute(self, tokens: Tokens) -> np.ndarray:
        """The model's rows for one request: fp32 [len(tokens), …], a vector or a number each."""
        parts, order = [], []
        for batch in token_batches([len(item) for item in tokens], self._max_tokens):
            parts.append(await self._submit([tokens[index] for index in batch]))
            order += batch
        rows = np.concatenate(parts)
        rows[order] = rows.copy()
        return rows

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    async def _submit(self, tokens: Tokens) -> np.ndarray:
        done: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((tokens, done))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await done

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group = self._take()
            merged = [item for tokens, _ in group for item in tokens]
            try:
                rows = await loop.run_in_executor(self._worker, self._forward, merged)
            except Exception as error:  # whatever the model says goes to the requests that asked, not to this loop
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
                continue
            start = 0
            for tokens, done in group:
                if not done.done():
                    done.set_result(rows[start : start + len(tokens)])
                start += len(tokens)
        self._running = None

    def _take(self) -> list[tuple[Tokens, asyncio.Future[np.ndarray]]]:
        """The batch that waited longest, and those that fit beside it."""
        group = [self._waiting.popleft()]
        left: deque[tuple[Tokens, asyncio.Future[np.ndarray]]] = deque()
        lengths = [len(item) for item in group[0][0]]
        for unit in self._waiting:
            merged = lengths + [len(item) for item in unit[0]]
            padded = len(merged) * max(merged)
            if padded <= self._max_tokens and sum(merged) >= (1 - _MOST_PADDING) * padded:
                group.append(unit)
                lengths = merged
            else:
                left.append(unit)
        self._waiting = left
        return group

"""What every route answers with: the loaded model, its batches, its limits and its counters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import Response
from pydantic import BaseModel

from pipeline.retrieval.onnx_encoder import TextTooLong
from pipeline_deploy.api import ApiError
from pipeline_deploy.batching import Batcher, Tokens
from pipeline_deploy.telemetry import Telemetry


@dataclass(frozen=True)
class Limits:
    """Most texts in one request, and most padded tokens computed at once."""

    request_texts: int = 2048
    batch_tokens: int = 2048


@dataclass(frozen=True)
class Serving:
    """A model that is being served under a name."""

    model: Any
    name: str
    limits: Limits
    batcher: Batcher
    telemetry: Telemetry

    async def compute(
        self, texts: int, kind: str, field: str, tokenize: Callable[[], Tokens]
    ) -> tuple[np.ndarray, int]:
        """The model's rows for one request, fp32 [texts, …], and the number of tokens that they took.

        `texts` is their number, `kind` the label under which they are counted, `field` the request's field that holds
        them; `tokenize` runs in a thread.

        Raises:
            ApiError: too many texts, a text that is too long and may not be cut, or a model that gives no numbers.
        """
        if texts > self.limits.request_texts:
            raise ApiError(413, f"{texts} texts in one request, at most {self.limits.request_texts}", param=field)
        try:
            tokens = await asyncio.to_thread(tokenize)
        except TextTooLong as error:
            raise ApiError(400, f"{error.message}; {error.fix}", "text_too_long", field) from error
        rows = await self.batcher.compute(tokens)
        if not np.isfinite(rows).all():
            raise ApiError(500, "the model gave a value that is not a number")
        count = sum(len(item) for item in tokens)
        self.telemetry.texts.labels(kind).inc(texts)
        self.telemetry.tokens.labels(kind).inc(count)
        return rows, count


@dataclass(frozen=True)
class Route:
    """A path of the API: the body it takes, and what answers it."""

    path: str
    summary: str
    body: type[BaseModel]
    answer: Callable[[Any, Serving], Awaitable[Response]]

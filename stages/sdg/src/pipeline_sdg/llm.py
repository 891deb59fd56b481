"""Calls to OpenAI-compatible endpoints: journaled, counted, paced, with clear ends for endpoints that fail."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np

from pipeline.errors import PipelineError
from pipeline_sdg.calls.batch import BatchApi
from pipeline_sdg.calls.budget import Budget
from pipeline_sdg.calls.channel import Channel
from pipeline_sdg.calls.chat import ChatModel
from pipeline_sdg.calls.errors import CallFailed, NotAccepted
from pipeline_sdg.calls.formats import SCHEMA, Message, Schema, with_format
from pipeline_sdg.calls.options import CallOptions, Sampling
from pipeline_sdg.calls.redaction import Redactor
from pipeline_sdg.calls.replies import vector_replies
from pipeline_sdg.calls.usage import Prices, RoleUsage, estimated_tokens
from pipeline_sdg.endpoints import EMBEDDED, Endpoint
from pipeline_sdg.journal import Journal, Reply, call_key

__all__ = ["EMBED_BATCH", "CallFailed", "CallOptions", "Caller", "Message", "RoleUsage", "Sampling", "Schema"]

log = logging.getLogger("pipeline")

EMBED_BATCH = 64


class Caller:
    """Makes the calls of all roles. Use as an async context manager.

    `timeout`: seconds for one try, from the name lookup to the last byte; `max_retries`: repeats of a failed try.

    Raises:
        PipelineError: prices, budget or redact patterns are not valid.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        journal: Journal,
        sampling: Sampling,
        timeout: float,
        max_retries: int,
        options: CallOptions | None = None,
    ) -> None:
        options = options or CallOptions()
        self._journal, self._sampling = journal, sampling.body()
        self.first_run = journal.empty
        self._endpoints = {item.role: item for item in endpoints}
        self.usage = {role: RoleUsage(item.provider, item.model) for role, item in self._endpoints.items()}
        self._prices = Prices(options.prices, self.usage)
        self.budget = Budget(self._prices, journal.spent(), self.usage, options.max_tokens_total, options.max_cost)
        self._redactor = Redactor(options.redact) if options.redact else None
        self._channels: dict[tuple[str, str], Channel] = {}
        self._models: dict[tuple[str, str], ChatModel] = {}
        for item in self._endpoints.values():
            if (item.base_url, item.key) not in self._channels:
                self._channels[item.base_url, item.key] = Channel(
                    item, timeout, max_retries, options.parallel, options.requests_per_minute
                )
            self._models.setdefault((item.base_url, item.model), ChatModel(self._channel(item), journal, item))
        self._batch = BatchApi(options.batch_folder, journal) if options.batch_folder else None
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Caller:
        if self._batch:
            await self._batch.resume(self._endpoints)
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels.values():
            channel.close()
        if self._batch:
            await self._batch.close()

    async def chat(self, role: str, messages: list[Message], schema: Schema, max_tokens: int | None = None) -> Reply:
        """One answer that should follow `schema`; from the journal if it was given before.

        Raises:
            CallFailed: no answer after all tries.
            BudgetReached: it could cost more than is left.
            PipelineError: the endpoint as a whole does not work.
        """
        endpoint, usage = self._endpoints[role], self.usage[role]
        body, redacted = self._body(endpoint, messages, max_tokens)
        key = _chat_key(endpoint, body, schema)
        async with self._under_way.setdefault(key, asyncio.Lock()):  # the same document twice is asked about once
            known = self._journal.get(key)
            if known:
                usage.count(known, reused=True)
                return known
            reply = await self._paid(endpoint, key, body, schema)
            usage.redacted += redacted
            usage.count(reply, reused=False)
            return reply

    def knows(self, role: str, messages: list[Message], schema: Schema, max_tokens: int | None = None) -> bool:
        """Whether an earlier run has the answer that `chat` would give. On a first run this costs nothing."""
        if self.first_run:
            return False
        endpoint = self._endpoints[role]
        body, _ = self._body(endpoint, messages, max_tokens)
        return self._journal.knows(_chat_key(endpoint, body, schema))

    async def embed(self, role: str, texts: list[str], kind: Literal["query", "passage"] = "query") -> np.ndarray:
        """Vectors (len(texts), dimension) float32; only texts the journal does not know are sent.

        `kind` matters to models that tell questions from passages (input_type).

        Raises:
            BudgetReached: they could cost more than is left.
            PipelineError: the endpoint gives no vectors, or some of another length.
        """
        endpoint, usage = self._endpoints[role], self.usage[role]
        messages, redacted = self._redacted(endpoint, [{"content": text} for text in texts])
        texts = [message["content"] for message in messages]
        # The key of a question is as it was before there were kinds: what was paid for stays known.
        of = {} if kind == "query" else {"kind": kind}
        keys = [
            call_key(role=role, model=endpoint.model, endpoint=endpoint.identity, text=text, **of) for text in texts
        ]
        found = {key: reply for key in keys if (reply := self._journal.get(key))}
        usage.count_vectors(found.values(), EMBED_BATCH)
        missing = [(key, text) for key, text in dict(zip(keys, texts, strict=True)).items() if key not in found]
        if missing:
            usage.redacted += redacted
        batches = [dict(missing[first : first + EMBED_BATCH]) for first in range(0, len(missing), EMBED_BATCH)]
        results = await asyncio.gather(
            *(self._embed(endpoint, batch, kind) for batch in batches), return_exceptions=True
        )
        for result in results:  # those that came are paid for and kept before the first error is raised
            if isinstance(result, BaseException):
                raise result
            found |= result
        vectors = [np.frombuffer(base64.b64decode(found[key].text), dtype="<f4") for key in keys]
        if len({len(vector) for vector in vectors}) > 1:
            raise PipelineError(
                f"{role} at {endpoint.base_url}: vectors of different lengths", fix="is it one model? see embed_model"
            )
        return np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)

    def _body(self, endpoint: Endpoint, messages: list[Message], max_tokens: int | None) -> tuple[dict[str, Any], int]:
        """A request without its form, as it may leave this machine, and how many places were taken out."""
        messages, redacted = self._redacted(endpoint, messages)
        sampling = self._sampling | ({"max_tokens": max_tokens} if max_tokens else {})
        return {"model": endpoint.model, "messages": messages, **sampling}, redacted

    def _redacted(self, endpoint: Endpoint, messages: list[Message]) -> tuple[list[Message], int]:
        """The messages as they may leave this machine, and how many places were taken out."""
        if not self._redactor or endpoint.is_local:
            return messages, 0
        cleaned, total = [], 0
        for message in messages:
            text, found = self._redactor(message["content"])
            cleaned.append({**message, "content": text})
            total += found
        return cleaned, total

    def _channel(self, endpoint: Endpoint) -> Channel:
        return self._channels[endpoint.base_url, endpoint.key]

    async def _paid(self, endpoint: Endpoint, key: str, body: dict[str, Any], schema: Schema) -> Reply:
        """A call within the budget; its answer is on the disk when this returns."""
        role, usage = endpoint.role, self.usage[endpoint.role]
        batch = self._batch if endpoint.provider != EMBEDDED else None
        prompt = estimated_tokens(sum(len(message["content"]) for message in body["messages"]))
        reserved = await self.budget.reserve(role, prompt, body.get("max_tokens"))
        used = (0, 0)
        try:
            if batch:
                reply = await batch.chat(endpoint, key, with_format(body, SCHEMA, endpoint, schema))
            else:
                reply = await self._models[endpoint.base_url, endpoint.model].ask(endpoint, body, schema, usage)
            used = reply.input_tokens, reply.output_tokens
            await self._journal.keep(role, endpoint.model, {key: reply})
        except CallFailed as error:
            usage.calls_failed += 1
            log.warning(f"{role}: a call failed: {error}")
            if not batch:
                self._channel(endpoint).failed(endpoint, error)
            raise
        finally:
            self._settle(role, reserved, used)
        return reply

    def _settle(self, role: str, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        self.budget.settle(role, reserved, used)
        cost = self._prices.cost(role, *used)
        if cost is not None:
            self.usage[role].cost = (self.usage[role].cost or 0.0) + cost

    async def _embed(self, endpoint: Endpoint, batch: dict[str, str], kind: str) -> dict[str, Reply]:
        """The vectors of one request, kept on disk."""
        role, usage = endpoint.role, self.usage[endpoint.role]
        reserved = await self.budget.reserve(role, estimated_tokens(sum(map(len, batch.values()))), 0)
        used = (0, 0)
        extra = {"input_type": kind, "truncate": "NONE"} if endpoint.provider == "nvidia" else {}
        body = {"model": endpoint.model, "input": list(batch.values()), "encoding_format": "float", **extra}
        try:
            parse = partial(vector_replies, list(batch))
            replies = await self._channel(endpoint).post(endpoint, "/embeddings", body, usage, parse)
            used = sum(reply.input_tokens for reply in replies.values()), 0
            await self._journal.keep(role, endpoint.model, replies)
        except (CallFailed, NotAccepted) as error:
            usage.calls_failed += 1
            raise PipelineError(
                f"{role} at {endpoint.base_url}: {error}", fix="give the command again, or set embed_model=null"
            ) from error
        finally:
            self._settle(role, reserved, used)
        usage.calls_made += 1
        usage.input_tokens += used[0]
        return replies


def _chat_key(endpoint: Endpoint, body: dict[str, Any], schema: Schema) -> str:
    return call_key(role=endpoint.role, endpoint=endpoint.identity, schema=schema, **body)

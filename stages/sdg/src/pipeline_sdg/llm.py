"""Calls to OpenAI-compatible endpoints: journaled, counted, with clear ends for endpoints that fail."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import openai

from pipeline.errors import PipelineError
from pipeline_sdg.endpoints import Endpoint
from pipeline_sdg.journal import Journal, Reply, call_key

log = logging.getLogger("pipeline")

FAILURES_IN_A_ROW = 10
"""After so many failed calls without one success the endpoint is taken for broken."""
EMBED_BATCH = 64
_CONTINUE = "mend that and give the same command again: finished calls are in the journal and are not repeated"

Message = dict[str, str]
Schema = dict[str, Any]


class CallFailed(Exception):
    """One call got no answer although the client tried again; others may succeed."""


class _NotAccepted(Exception):
    """HTTP 400 or 422: the endpoint does not take this request."""


@dataclass(frozen=True)
class Sampling:
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int | None = None
    seed: int | None = None

    def body(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class RoleUsage:
    """Calls and tokens of one role. `reused` came from the journal and cost nothing in this run."""

    provider: str
    model: str
    calls_made: int = 0
    calls_reused: int = 0
    calls_failed: int = 0
    repair_turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reused_input_tokens: int = 0
    reused_output_tokens: int = 0

    def count(self, reply: Reply, reused: bool) -> None:
        if reused:
            self.calls_reused += 1
            self.reused_input_tokens += reply.input_tokens
            self.reused_output_tokens += reply.output_tokens
        else:
            self.calls_made += 1
            self.input_tokens += reply.input_tokens
            self.output_tokens += reply.output_tokens


@dataclass
class _State:
    """What was learned of a role's endpoint."""

    client: openai.AsyncOpenAI
    usage: RoleUsage
    schema_in_prompt: bool = False
    proven: bool = False
    first_call: asyncio.Lock = field(default_factory=asyncio.Lock)


class Caller:
    """Makes the calls of all roles. Use as an async context manager.

    `max_retries` and `timeout` (seconds) are the client's: it waits longer before each repeat and honours Retry-After.
    """

    def __init__(
        self, endpoints: Iterable[Endpoint], journal: Journal, sampling: Sampling, timeout: float, max_retries: int
    ) -> None:
        self._journal, self._sampling = journal, sampling
        self._endpoints = {item.role: item for item in endpoints}
        self._states = {
            item.role: _State(_client(item, timeout, max_retries), RoleUsage(item.provider, item.model))
            for item in self._endpoints.values()
        }
        self._failed_in_a_row = 0
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(state.client.close() for state in self._states.values()))

    @property
    def usage(self) -> dict[str, RoleUsage]:
        return {role: state.usage for role, state in self._states.items()}

    async def chat(self, role: str, messages: list[Message], schema: Schema, max_tokens: int | None = None) -> Reply:
        """One answer that should follow `schema`; from the journal if it was given before.

        Raises:
            CallFailed: no answer after the client's retries.
            PipelineError: the endpoint as a whole does not work.
        """
        endpoint, state = self._endpoints[role], self._states[role]
        sampling = self._sampling.body() | ({"max_tokens": max_tokens} if max_tokens else {})
        key = call_key(
            role=role, model=endpoint.model, endpoint=endpoint.identity, messages=messages, schema=schema, **sampling
        )
        async with self._under_way.setdefault(key, asyncio.Lock()):  # the same document twice is asked about once
            known = self._journal.get(key)
            if known:
                state.usage.count(known, reused=True)
                return known
            body = {"model": endpoint.model, "messages": messages, **sampling}
            try:
                reply = await self._chat(endpoint, state, body, schema)
            except CallFailed as error:
                self._note_failure(endpoint, state, error)
                raise
            self._failed_in_a_row = 0
            self._journal.put(key, role, endpoint.model, reply)
            state.usage.count(reply, reused=False)
            return reply

    async def embed(self, role: str, texts: list[str]) -> np.ndarray:
        """Vectors (len(texts), dimension) float32; only texts the journal does not know are sent."""
        endpoint, state = self._endpoints[role], self._states[role]
        keys = [call_key(role=role, model=endpoint.model, endpoint=endpoint.identity, text=text) for text in texts]
        found = {key: reply for key in keys if (reply := self._journal.get(key))}
        state.usage.calls_reused += math.ceil(len(found) / EMBED_BATCH)
        state.usage.reused_input_tokens += sum(reply.input_tokens for reply in found.values())
        missing = [(key, text) for key, text in dict(zip(keys, texts, strict=True)).items() if key not in found]
        for first in range(0, len(missing), EMBED_BATCH):
            batch = dict(missing[first : first + EMBED_BATCH])
            try:
                replies = await self._embed(endpoint, state, batch)
            except (CallFailed, _NotAccepted) as error:
                raise PipelineError(
                    f"{role} at {endpoint.base_url}: {error}", fix="give the command again, or set embed_model=null"
                ) from error
            self._journal.put_many(role, endpoint.model, replies)
            found |= replies
        return np.stack([_unpack(found[key].text) for key in keys])

    async def _chat(self, endpoint: Endpoint, state: _State, body: dict[str, Any], schema: Schema) -> Reply:
        if not state.proven:
            async with state.first_call:  # one call finds out what the endpoint takes, the others wait for it
                if not state.proven:
                    return await self._first_chat(endpoint, state, body, schema)
        try:
            return await self._send(endpoint, state, body, schema)
        except _NotAccepted as error:
            raise CallFailed(str(error)) from error

    async def _first_chat(self, endpoint: Endpoint, state: _State, body: dict[str, Any], schema: Schema) -> Reply:
        try:
            reply = await self._send(endpoint, state, body, schema)
        except _NotAccepted as refused:
            state.schema_in_prompt = True
            try:
                reply = await self._send(endpoint, state, body, schema)
            except _NotAccepted as error:
                state.schema_in_prompt = False
                raise CallFailed(str(error)) from error
            log.info(f"{endpoint.role}: no response_format at {endpoint.base_url} ({refused}): schema in the prompt")
        state.proven = True
        return reply

    async def _send(self, endpoint: Endpoint, state: _State, body: dict[str, Any], schema: Schema) -> Reply:
        if state.schema_in_prompt:
            body = {**body, "messages": _with_schema(body["messages"], schema)}
        else:
            strict = strict_schema(schema) if endpoint.provider == "openai" else schema
            response_format = {"name": endpoint.role, "schema": strict, "strict": True}
            body = {**body, "response_format": {"type": "json_schema", "json_schema": response_format}}
        answer = await self._guarded(endpoint, state.client.chat.completions.create(**body))
        try:
            choice = answer.choices[0]
            text = choice.message.content or ""
        except (AttributeError, IndexError, TypeError) as error:
            raise CallFailed(f"{endpoint.base_url} answered something that is no chat completion") from error
        used = answer.usage
        return Reply(
            text, choice.finish_reason, (used and used.prompt_tokens) or 0, (used and used.completion_tokens) or 0
        )

    async def _embed(self, endpoint: Endpoint, state: _State, batch: dict[str, str]) -> dict[str, Reply]:
        extra = {"input_type": "query", "truncate": "NONE"} if endpoint.provider == "nvidia" else None
        request = state.client.embeddings.create(
            model=endpoint.model, input=list(batch.values()), encoding_format="float", extra_body=extra
        )
        answer = await self._guarded(endpoint, request)
        rows = sorted(answer.data or [], key=lambda item: item.index)
        if len(rows) != len(batch):
            raise CallFailed(f"{len(batch)} texts gave {len(rows)} vectors")
        tokens = (answer.usage and answer.usage.prompt_tokens) or 0
        replies = {}
        for number, (key, row) in enumerate(zip(batch, rows, strict=True)):
            vector = np.asarray(row.embedding, dtype="<f4")
            packed = base64.b64encode(vector.tobytes()).decode()
            replies[key] = Reply(packed, None, tokens if number == 0 else 0, 0)  # one bill for the batch
        state.usage.calls_made += 1
        state.usage.input_tokens += tokens
        return replies

    async def _guarded(self, endpoint: Endpoint, request: Any) -> Any:
        """Await a request; errors of the endpoint as a whole stop the stage, others fail this call alone."""
        where, about = endpoint.base_url, f"{endpoint.role}_model={endpoint.model}"
        try:
            return await request
        except openai.APITimeoutError as error:
            raise CallFailed("no answer within the timeout") from error
        except openai.APIConnectionError as error:
            cause = str(error.__cause__ or error)
            raise PipelineError(f"cannot reach {where} ({cause})", fix=f"is it running? {_CONTINUE}") from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            named = f" from {endpoint.key_env}" if endpoint.key_env else ""
            raise PipelineError(
                f"{where} refused the API key{named} (HTTP {error.status_code}) for {about}",
                fix=f"check that the key is valid and may use this model; {_CONTINUE}",
            ) from error
        except openai.NotFoundError as error:
            raise PipelineError(
                f"{where} has no such model or path (HTTP 404): {about}",
                fix=f"see {where}/models for names; {_CONTINUE}",
            ) from error
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise _NotAccepted(f"HTTP {error.status_code}: {_short(error)}") from error
        except openai.APIStatusError as error:
            raise CallFailed(f"HTTP {error.status_code}: {_short(error)}") from error
        except (openai.OpenAIError, ValueError) as error:
            raise CallFailed(f"answer is not valid: {_short(error)}") from error

    def _note_failure(self, endpoint: Endpoint, state: _State, error: CallFailed) -> None:
        state.usage.calls_failed += 1
        self._failed_in_a_row += 1
        log.warning(f"{endpoint.role}: a call failed: {error}")
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise PipelineError(
                f"{endpoint.base_url}: {FAILURES_IN_A_ROW} calls in a row failed, the last with: {error}", fix=_CONTINUE
            ) from error


def strict_schema(schema: Schema) -> Schema:
    """Without the keywords that OpenAI's strict mode refuses; we check what they said anyway."""
    refused = {"minLength", "maxLength", "pattern"}
    return {
        name: strict_schema(value) if isinstance(value, dict) else value
        for name, value in schema.items()
        if name not in refused
    }


def _with_schema(messages: list[Message], schema: Schema) -> list[Message]:
    told = "\n\nAnswer with JSON alone, in one ```json block, that follows this JSON Schema:\n"
    last = messages[-1]
    return [*messages[:-1], {**last, "content": last["content"] + told + json.dumps(schema)}]


def _client(endpoint: Endpoint, timeout: float, max_retries: int) -> openai.AsyncOpenAI:
    # A proxy from the environment must not stand between us and our own machine.
    http = openai.DefaultAsyncHttpxClient(trust_env=not endpoint.is_local)
    return openai.AsyncOpenAI(
        api_key=endpoint.key, base_url=endpoint.base_url, timeout=timeout, max_retries=max_retries, http_client=http
    )


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

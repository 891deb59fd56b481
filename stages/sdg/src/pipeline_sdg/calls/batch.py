"""The batch API of OpenAI and those like it: requests go up in one file, answers come down in another, for less money.

https://platform.openai.com/docs/guides/batch. What is under way stands on disk before and after every step, so that a
run killed at any point finds its batch again and pays for nothing twice:

    <name>.jsonl    the requests, one line each; custom_id is the key of the call in the journal
    <name>.json     the role, and the ids of the uploaded file and of the batch as soon as they are known
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.run.files import read_json, read_jsonl, write_json, write_jsonl
from pipeline_sdg.calls.batch_client import BatchClient
from pipeline_sdg.calls.errors import Again, CallFailed
from pipeline_sdg.calls.replies import chat_reply
from pipeline_sdg.endpoints import Endpoint
from pipeline_sdg.journal import Journal, Reply

log = logging.getLogger("pipeline")

QUIET_SECONDS = 2.0
"""A batch is sent when no request was added for so long, or when it is full."""
MOST_REQUESTS, MOST_BYTES = 50_000, 150_000_000
"""The API takes 50,000 requests and 200 MB."""

Waiting = tuple[dict[str, Any], asyncio.Future[Reply]]


class BatchApi:
    """Collects chat calls into batches. As many calls as shall be in one batch must be waiting at once."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder, self._journal = folder, journal
        self._clients: dict[str, BatchClient] = {}
        self._collected: dict[str, dict[str, Waiting]] = {}
        self._sizes: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def resume(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Fetch what earlier runs left under way. Batches of roles this run lacks stay.

        Raises:
            PipelineError: the API cannot be used.
        """
        for state in sorted(self._folder.glob("*.json")):
            endpoint = endpoints.get(read_json(state)["role"])
            if endpoint:
                log.info(f"{endpoint.role}: going on with batch {state.stem} of an earlier run")
                try:
                    await self._finish(endpoint, state)
                except CallFailed as error:
                    log.warning(f"{endpoint.role}: {error}: its calls will be made again")

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self._clients.values()))

    async def chat(self, endpoint: Endpoint, key: str, body: dict[str, Any]) -> Reply:
        """The answer to one request, when its batch has come back; it is in the journal by then.

        Raises:
            CallFailed: the batch has no answer for it. PipelineError: the API cannot be used.
        """
        role = endpoint.role
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._collected.setdefault(role, {})[key] = (body, future)
        self._sizes[role] = self._sizes.get(role, 0) + len(json.dumps(body))
        if role in self._timers:
            self._timers.pop(role).cancel()
        if len(self._collected[role]) >= MOST_REQUESTS or self._sizes[role] >= MOST_BYTES:
            self._send(endpoint)
        else:
            self._timers[role] = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._send, endpoint)
        return await future

    def _send(self, endpoint: Endpoint) -> None:
        self._timers.pop(endpoint.role, None)
        self._sizes.pop(endpoint.role, None)
        task = asyncio.create_task(self._run(endpoint, self._collected.pop(endpoint.role)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, endpoint: Endpoint, requests: dict[str, Waiting]) -> None:
        try:
            state = self._write(endpoint, {key: body for key, (body, _) in requests.items()})
            log.info(f"{endpoint.role}: {len(requests)} calls go into batch {state.stem}")
            replies, reasons = await self._finish(endpoint, state)
        except BaseException as error:
            for _, future in requests.values():
                if not future.done():
                    future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for key, (_, future) in requests.items():
            if future.done():
                continue
            if key in replies:
                future.set_result(replies[key])
            else:
                future.set_exception(CallFailed(reasons.get(key, "the batch came back without an answer to it")))

    def _write(self, endpoint: Endpoint, bodies: dict[str, dict[str, Any]]) -> Path:
        name = secrets.token_hex(8)  # of this order alone: the same calls may be ordered anew (resume=never)
        fixed = {"method": "POST", "url": "/v1/chat/completions"}
        write_jsonl(
            self._folder / f"{name}.jsonl", ({"custom_id": key, **fixed, "body": body} for key, body in bodies.items())
        )
        return write_json(self._folder / f"{name}.json", {"role": endpoint.role})

    async def _finish(self, endpoint: Endpoint, state: Path) -> tuple[dict[str, Reply], dict[str, str]]:
        """Take a batch to its end from wherever it stands: (answers, reasons of what has none) by key."""
        client = self._clients.setdefault(endpoint.base_url, BatchClient(endpoint))
        requests = state.with_suffix(".jsonl")
        known = read_json(state)
        if "batch" not in known:
            # A run killed between the order and this note has ordered it all the same.
            ordered = await client.ordered(state.stem)
            if not ordered:
                if "file" not in known:
                    known["file"] = await client.upload(requests)
                    write_json(state, known)
                ordered = await client.order(known["file"], state.stem)
            known["batch"] = ordered
            write_json(state, known)
        try:
            lines = await client.wait(known["batch"])
        except CallFailed:
            _forget(state)
            raise
        bodies = {row["custom_id"]: row["body"] for _, row in read_jsonl(requests)}
        replies, reasons = _sorted_out(endpoint, bodies, lines)
        self._journal.put_many(endpoint.role, endpoint.model, replies)
        _forget(state)
        return replies, reasons


def _forget(state: Path) -> None:
    state.unlink()
    state.with_suffix(".jsonl").unlink()


def _sorted_out(
    endpoint: Endpoint, bodies: dict[str, dict[str, Any]], lines: list[str]
) -> tuple[dict[str, Reply], dict[str, str]]:
    replies: dict[str, Reply] = {}
    reasons: dict[str, str] = {}
    for line in lines:
        try:
            row = json.loads(line)
            key, response = row["custom_id"], row.get("response") or {}
            if key not in bodies:
                continue
            if response.get("status_code") == 200:
                replies[key] = chat_reply(endpoint, bodies[key], response["body"])
            else:
                said = " ".join(json.dumps(row.get("error") or response.get("body")).split())[:300]
                reasons[key] = f"HTTP {response.get('status_code')} in the batch: {said}"
        except Again as error:
            reasons[key] = str(error)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PipelineError(
                f"{endpoint.base_url}: a line of the batch's answer is not as documented: {line[:200]!r}",
                fix="set batch_api=false",
            ) from error
    return replies, reasons

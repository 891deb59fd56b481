"""The few requests of the batch API, by the `openai` client: uploads, orders, and long waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from pipeline.errors import PipelineError
from pipeline_sdg.calls.errors import CallFailed, without_key
from pipeline_sdg.endpoints import Endpoint

log = logging.getLogger("pipeline")

POLL_SECONDS = 30.0
MARK = "pipeline_sdg"
"""The name of a batch stands under this word in its metadata."""
_TRIES = 8
_ENDS = ("completed", "failed", "expired", "cancelled")
Answer = TypeVar("Answer")


class BatchClient:
    """Raises PipelineError when the API cannot be used; the batch itself goes on meanwhile."""

    def __init__(self, endpoint: Endpoint) -> None:
        import openai  # takes a second and many megabytes that other runs need not spend

        http = openai.DefaultAsyncHttpxClient(trust_env=not endpoint.is_local)
        self._endpoint, self._errors = endpoint, openai
        self._api = openai.AsyncOpenAI(
            api_key=endpoint.key, base_url=endpoint.base_url, max_retries=_TRIES, http_client=http
        )

    async def close(self) -> None:
        await self._api.close()

    async def upload(self, requests: Path) -> str:
        """The id of the uploaded file."""
        return (await self._guarded(self._api.files.create(file=requests, purpose="batch"))).id

    async def order(self, file: str, name: str) -> str:
        """The id of a new batch."""
        made = await self._guarded(
            self._api.batches.create(
                input_file_id=file,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={MARK: name},
            )
        )
        return made.id

    async def ordered(self, name: str) -> str | None:
        """The id of the batch of this name that is under way or done, if there is one."""
        page = await self._guarded(self._first_page())
        for batch in page.data:
            if (batch.metadata or {}).get(MARK) == name and batch.status not in ("failed", "cancelled", "cancelling"):
                return batch.id
        return None

    async def wait(self, batch: str) -> list[str]:
        """The lines of all answers and errors, when the batch has ended.

        Raises:
            CallFailed: the whole batch failed.
        """
        shown = ""
        while True:
            found = await self._guarded(self._api.batches.retrieve(batch))
            done = found.request_counts
            note = f"{found.status}" + (f", {done.completed} of {done.total} done" if done else "")
            if note != shown:
                log.info(f"batch {batch}: {note}")
                shown = note
            if found.status in _ENDS:
                break
            await asyncio.sleep(POLL_SECONDS)
        files = [file for file in (found.output_file_id, found.error_file_id) if file]
        if not files:
            reasons = [error.message for error in (found.errors and found.errors.data) or []]
            raise CallFailed(f"batch {batch} is {found.status}: {'; '.join(map(str, reasons)) or 'no reason given'}")
        lines = []
        for file in files:
            content = await self._guarded(self._api.files.content(file))
            lines += without_key(self._endpoint, content.content).decode("utf-8", "replace").splitlines()
        return [line for line in lines if line.strip()]

    async def _first_page(self):
        return await self._api.batches.list(limit=100)

    async def _guarded(self, request: Awaitable[Answer]) -> Answer:
        where = self._endpoint.base_url
        try:
            return await request
        except self._errors.NotFoundError as error:
            raise PipelineError(f"{where} has no batch API (HTTP 404)", fix="set batch_api=false") from error
        except self._errors.OpenAIError as error:
            said = without_key(self._endpoint, str(error).encode()).decode()[:300]
            raise PipelineError(
                f"{where}: the batch API does not answer as it should: {said}",
                fix="give the same command again: a batch that was sent goes on and is picked up",
            ) from error

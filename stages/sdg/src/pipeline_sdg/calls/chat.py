"""One model at one address: its first call finds out which form of request it takes."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from pipeline_sdg.calls.channel import Channel
from pipeline_sdg.calls.errors import CallFailed, NotAccepted
from pipeline_sdg.calls.formats import FORMATS, SCHEMA, Schema, with_format
from pipeline_sdg.calls.replies import chat_reply
from pipeline_sdg.calls.usage import RoleUsage
from pipeline_sdg.endpoints import Endpoint
from pipeline_sdg.journal import Reply

log = logging.getLogger("pipeline")


class ChatModel:
    """Shared by all roles that use the model."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._form, self._known = SCHEMA, False
        self._first_call = asyncio.Lock()

    async def ask(self, endpoint: Endpoint, body: dict[str, Any], schema: Schema, usage: RoleUsage) -> Reply:
        """The answer to a request without its form.

        Raises:
            CallFailed: no answer, or the request is refused in every form.
            PipelineError: the endpoint as a whole does not work.
        """
        if not self._known:
            async with self._first_call:  # one call finds out what the endpoint takes, the others wait for it
                if not self._known:
                    return await self._find_out(endpoint, body, schema, usage)
        try:
            return await self._send(endpoint, self._form, body, schema, usage)
        except NotAccepted as error:
            raise CallFailed(str(error)) from error

    async def _find_out(self, endpoint: Endpoint, body: dict[str, Any], schema: Schema, usage: RoleUsage) -> Reply:
        refused: NotAccepted | None = None
        for form in FORMATS:
            try:
                reply = await self._send(endpoint, form, body, schema, usage)
            except NotAccepted as error:
                refused = error
                continue
            if refused:
                log.info(
                    f"{endpoint.role}: {endpoint.base_url} takes no request of a richer form than {form}: {refused}"
                )
            self._form, self._known = form, True
            return reply
        raise CallFailed(str(refused)) from refused

    async def _send(
        self, endpoint: Endpoint, form: str, body: dict[str, Any], schema: Schema, usage: RoleUsage
    ) -> Reply:
        request = with_format(body, form, endpoint, schema)
        parse = partial(chat_reply, endpoint, body)
        return await self._channel.post(endpoint, "/chat/completions", request, usage, parse)

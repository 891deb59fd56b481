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
from pipeline_sdg.journal import Journal, Reply

log = logging.getLogger("pipeline")


class ChatModel:
    """Shared by all roles that use the model. The journal keeps the form, so that a later run begins with it."""

    def __init__(self, channel: Channel, journal: Journal, endpoint: Endpoint) -> None:
        self._channel, self._journal = channel, journal
        self._address = " ".join(endpoint.identity).strip()
        self._kept = journal.form(self._address, endpoint.model)
        self._form, self._known = self._kept if self._kept in FORMATS else SCHEMA, False
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
        for form in dict.fromkeys((self._form, *FORMATS)):
            try:
                reply = await self._send(endpoint, form, body, schema, usage)
            except NotAccepted as error:
                refused = error
                continue
            if refused and form != SCHEMA:
                log.info(
                    f"{endpoint.role}: {endpoint.base_url} takes no request of a richer form than {form}: {refused}"
                )
            self._form, self._known = form, True
            if form != self._kept:
                await asyncio.to_thread(self._journal.put_form, self._address, endpoint.model, form)
            return reply
        raise CallFailed(str(refused)) from refused

    async def _send(
        self, endpoint: Endpoint, form: str, body: dict[str, Any], schema: Schema, usage: RoleUsage
    ) -> Reply:
        request = with_format(body, form, endpoint, schema)
        parse = partial(chat_reply, endpoint, body)
        return await self._channel.post(endpoint, "/chat/completions", request, usage, parse)

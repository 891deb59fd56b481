"""One endpoint's address: its connections, its pace, and the tries of each call."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.errors import PipelineError
from pipeline_sdg.calls.breaker import Breaker
from pipeline_sdg.calls.errors import CONTINUE, Again, CallFailed, RateLimited, decoded
from pipeline_sdg.calls.pacing import COOLDOWN, Limiter, backoff
from pipeline_sdg.calls.usage import RoleUsage
from pipeline_sdg.calls.wire import Wire, WireError
from pipeline_sdg.endpoints import Endpoint

Parsed = TypeVar("Parsed")
PATIENCE = 300.0
"""Seconds without any answer but HTTP 429, or asked for by the server, after which we stop waiting."""


class Channel:
    """Shared by all roles of one address and key. `timeout` in seconds for one try, `max_retries` repeats of a try
    that failed; waiting out a rate limit is none."""

    def __init__(
        self, endpoint: Endpoint, timeout: float, max_retries: int, parallel: int, per_minute: int | None
    ) -> None:
        # A proxy from the environment must not stand between us and our own machine.
        self._wire = Wire(endpoint.base_url, endpoint.key, proxies=not endpoint.is_local)
        self._timeout, self._max_retries = timeout, max_retries
        self.limiter, self.breaker = Limiter(parallel, per_minute), Breaker()
        self._heard = time.monotonic()

    def close(self) -> None:
        self._wire.close()

    def failed(self, endpoint: Endpoint, error: CallFailed) -> None:
        """Count a call that failed for good.

        Raises:
            PipelineError: too many did.
        """
        if reason := self.breaker.failed():
            given_up = PipelineError(f"{endpoint.base_url}: {reason}, the last with: {error}", fix=CONTINUE)
            self.limiter.stop(given_up)
            raise given_up from error

    async def post(
        self, endpoint: Endpoint, path: str, body: dict[str, Any], usage: RoleUsage, parse: Callable[[Any], Parsed]
    ) -> Parsed:
        """What `parse` makes of the endpoint's JSON; it raises Again when that is not what was asked for.

        Raises:
            CallFailed: every try failed.
            NotAccepted: the request is refused.
            PipelineError: the endpoint as a whole does not work.
        """
        try:
            return await self._post(endpoint, path, json.dumps(body).encode(), usage, parse)
        except PipelineError as error:
            self.limiter.stop(error)
            raise

    async def _post(
        self, endpoint: Endpoint, path: str, data: bytes, usage: RoleUsage, parse: Callable[[Any], Parsed]
    ) -> Parsed:
        failures = 0
        if not self.limiter.running:
            self._heard = time.monotonic()  # nothing was asked of it, so its silence says nothing
        while True:
            try:
                async with self.limiter:
                    answer = parse(await self._try(endpoint, path, data))
            except RateLimited as error:
                usage.rate_limited += 1
                self._check_patience(endpoint, error, time.monotonic() - self._heard)
            except Again as error:
                self._check_patience(endpoint, error, 0.0)
                if failures == self._max_retries:
                    raise CallFailed(str(error)) from error
                usage.retries += 1
                await self.limiter.pause(max(error.after or 0.0, backoff(failures)))
                failures += 1
            else:
                self._heard = time.monotonic()
                self.limiter.succeeded()
                self.breaker.succeeded()
                return answer

    async def _try(self, endpoint: Endpoint, path: str, data: bytes) -> Any:
        try:
            answer = await self._wire.post(path, data, self._timeout)
            self.breaker.proven = True
            return decoded(endpoint, answer)
        except TimeoutError as error:
            self.limiter.overloaded(0.0)
            raise Again("no answer within the timeout") from error
        except WireError as error:
            raise Again(str(error)) from error
        except OSError as error:
            if not self.breaker.proven:
                raise PipelineError(
                    f"cannot reach {endpoint.base_url} ({error})", fix=f"is it running? {CONTINUE}"
                ) from error
            raise Again(f"cannot reach {endpoint.base_url} ({error})") from error
        except Again as error:
            if error.overload:
                self.limiter.overloaded(COOLDOWN if error.after is None else error.after)
            raise

    def _check_patience(self, endpoint: Endpoint, error: Again, waited: float) -> None:
        if max(waited, error.after or 0.0) > PATIENCE:
            wait = f", to be waited for {error.after:.0f} s" if error.after else ""
            raise PipelineError(
                f"{endpoint.base_url} has no room for us{wait}: {error}",
                fix="try again later, or with a smaller max_parallel_requests_for_gen or requests_per_minute; "
                "finished calls are in the journal and are not repeated",
            ) from error

"""How a call can go wrong, and what a server's answer means."""

from __future__ import annotations

import json
from typing import Any

from pipeline.errors import PipelineError
from pipeline_sdg.calls.pacing import seconds_of_retry_after
from pipeline_sdg.calls.wire import Response
from pipeline_sdg.endpoints import Endpoint

CONTINUE = "mend that and give the same command again: finished calls are in the journal and are not repeated"
_SHOWN = 300
_SHORTEST_KEY = 12
_OVERLOADED = (503, 529)


class CallFailed(Exception):
    """One call got no answer although it was tried again; others may succeed."""


class NotAccepted(Exception):
    """HTTP 400, 413 or 422: the endpoint does not take this request."""


class Again(Exception):
    """Worth another try. `after`: seconds the server asked us to wait; `overload`: the endpoint has too much to do."""

    def __init__(self, reason: str, after: float | None = None, overload: bool = False) -> None:
        super().__init__(reason)
        self.after, self.overload = after, overload


class RateLimited(Again):
    """HTTP 429: the call waits its turn, however often; it is no failure."""


def decoded(endpoint: Endpoint, response: Response) -> Any:
    """The JSON of a good answer.

    Raises:
        Again: a server's trouble, or an answer that is broken.
        NotAccepted: this request is refused.
        PipelineError: the endpoint as a whole does not work.
    """
    if 200 <= response.status < 300:
        try:
            return json.loads(without_key(endpoint, response.body))
        except (ValueError, RecursionError) as error:  # cut off, no JSON, not UTF-8; too deep
            raise Again(f"the answer is not valid JSON: {_shown(error)}") from error
    said = _shown(without_key(endpoint, response.body).decode("utf-8", "replace"))
    reason = f"HTTP {response.status}: {said}"
    if response.status in (400, 413, 422):
        raise NotAccepted(reason)
    after = seconds_of_retry_after(response.headers)
    if response.status == 429 and "insufficient_quota" not in said:
        raise RateLimited(reason, after, overload=True)
    if response.status in (408, 409, 425) or response.status >= 500:
        raise Again(reason, after, overload=response.status in _OVERLOADED)
    raise _fatal(endpoint, response, reason)


def _fatal(endpoint: Endpoint, response: Response, reason: str) -> PipelineError:
    where, about = endpoint.base_url, f"{endpoint.role}_model={endpoint.model}"
    if response.status in (401, 403):
        named = f" from {endpoint.key_env}" if endpoint.key_env else ""
        return PipelineError(
            f"{where} refused the API key{named} (HTTP {response.status}) for {about}",
            fix=f"check that the key is valid and may use this model; {CONTINUE}",
        )
    if response.status == 404:
        return PipelineError(
            f"{where} has no such model or path (HTTP 404): {about}", fix=f"see {where}/models for names; {CONTINUE}"
        )
    if response.status in (402, 429):
        return PipelineError(f"{where}: the account has no credit left ({reason})", fix=f"top it up; {CONTINUE}")
    moved = response.headers.get("location")
    return PipelineError(
        f"{where} does not answer such requests: {reason}" + (f" (it points to {moved})" if moved else ""),
        fix=f"see base_url; {CONTINUE}",
    )


def without_key(endpoint: Endpoint, body: bytes) -> bytes:
    """What a server sent, less our own key: some repeat it in what they answer. A word such as `EMPTY`, which servers
    on one's own machine are given for a key, is no secret and stays."""
    if len(endpoint.key) < _SHORTEST_KEY:
        return body
    return body.replace(endpoint.key.encode(), b"[key]")


def _shown(value: object) -> str:
    return " ".join(str(value).split())[:_SHOWN]

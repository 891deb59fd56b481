"""Requests that are repeated when that may help, several at once, and end in one clear error when it does not."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, TypeVar

import httpx

from pipeline.errors import PipelineError
from pipeline.llm import is_loopback

logger = logging.getLogger("pipeline")
LONGEST_WAIT = 60.0
"""Seconds; neither back-off nor Retry-After makes us wait longer than this between two tries."""
_NOTICED = 5.0
"""Seconds; who waits longer is told why."""
_SHOWN = 300
_UNREADABLE = (ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError)
"""What reading a reply raises that is not what it should be."""

Item = TypeVar("Item")
Found = TypeVar("Found")


class Refused(PipelineError):
    """The service answers with `status`, but not to this: another try would give the same."""

    def __init__(self, message: str, fix: str, status: int) -> None:
        super().__init__(message, fix)
        self.status = status


class _TryAgain(Exception):
    """A failure that the next try may mend; `wait` is what the server asked for, in seconds."""

    def __init__(self, problem: str, wait: float | None = None, *, reply: bool = False) -> None:
        super().__init__(problem)
        self.wait, self.reply = wait, reply


class _Ending(Exception):
    """Another request failed for good."""


@dataclass
class Http:
    """One service. Texts and API key go to `url` alone: redirects are not followed.

    Attributes:
        key: configuration key with the address, for messages.
        max_retries: repeats of one request after overload (429), server errors, lost connections, unusable replies.
        key_env: environment variable that holds the API key; None where the service needs none.
        start_hint: the command that starts the service, shown when it is not there.
        at_once: requests under way at the same time.
        first_wait: seconds before the first repeat; doubled each time, unless the service says how long (Retry-After).
        retried: requests repeated so far.
        unusable: of these, the ones whose reply could not be used.

    Raises:
        PipelineError: `url` is no address or holds a user's name; with the first request, `key_env` holds no key.
    """

    url: str
    timeout: float = 60.0
    max_retries: int = 3
    key_env: str | None = None
    start_hint: str = "pipeline embed deploy detach=true"
    at_once: int = 4
    first_wait: float = 0.5
    key: str = "nim_url"
    retried: int = 0
    unusable: int = 0
    _ending: threading.Event = field(default_factory=threading.Event, repr=False)
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.host = _host_of(self.url, self.key)
        self.url = self.url.rstrip("/")

    @cached_property
    def _key(self) -> str:
        return _key_of(self.key_env)

    @cached_property
    def _client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        # A proxy from the environment must not carry texts away from an address on this machine.
        return httpx.Client(headers=headers, timeout=self.timeout, trust_env=not is_loopback(self.host))

    def get(self, path: str, read: Callable[[httpx.Response], Found]) -> Found:
        """What `read` makes of the reply; otherwise as `post`."""
        return self._repeated(path, lambda: self._once(path, None, read))

    def post(self, path: str, body: dict[str, Any], read: Callable[[Any], Found]) -> Found:
        """What `read` makes of the reply's JSON; one that cannot be read (ValueError, KeyError, …) is asked for again.

        Raises:
            Refused: the service does not take the request.
            PipelineError: nothing listens at the address, or the last try failed too.
        """
        return self._repeated(path, lambda: self._once(path, body, lambda reply: read(reply.json())))

    def each(
        self,
        work: Callable[[Item], Found],
        items: Sequence[Item],
        done: Callable[[Item], None] | None = None,
    ) -> list[Found]:
        """`work` of every item, `at_once` of them at the same time; results in the order of the items.

        The first failure ends it: what has not begun is not begun. `done` is called for each finished item, in any
        order but never twice at once.
        """
        self._ending.clear()
        with ThreadPoolExecutor(self.at_once) as pool:
            calls = {pool.submit(work, item): item for item in items}
            try:
                for call in as_completed(calls):
                    call.result()
                    if done:
                        done(calls[call])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._ending.set()
                raise
        return [call.result() for call in calls]

    def _repeated(self, path: str, once: Callable[[], Found]) -> Found:
        tries = 1
        while True:
            try:
                return once()
            except _TryAgain as problem:
                if tries > self.max_retries:
                    raise PipelineError(
                        f"{self.url}{path} failed after {tries} {'tries' if tries > 1 else 'try'}: {problem}",
                        fix=f"look at the service's log; is it still there? (`{self.start_hint}`)",
                    ) from problem
                wait = problem.wait if problem.wait is not None else self.first_wait * 2 ** (tries - 1)
                wait = min(wait, LONGEST_WAIT)
                with self._counting:
                    self.retried += 1
                    self.unusable += problem.reply
                level = logging.INFO if wait >= _NOTICED else logging.DEBUG
                logger.log(level, f"{self.url}{path}: {problem}; again in {wait:g} s")
            tries += 1
            self._pause(wait)

    def _pause(self, seconds: float) -> None:
        if self._ending.wait(seconds):
            raise _Ending

    def _once(self, path: str, body: dict[str, Any] | None, read: Callable[[httpx.Response], Found]) -> Found:
        reply = self._reply(path, body)
        status = reply.status_code
        if status in (408, 429) or status >= 500:
            raise _TryAgain(f"status {status}", _retry_after(reply))
        if status != 200:
            message = f"{self.url}{path} refuses the request: {status} {self._shown(reply)}"
            raise Refused(message, _refusal_fix(status, self.key), status)
        try:
            return read(reply)
        except _UNREADABLE as error:
            raise _TryAgain(f"unusable reply: {type(error).__name__}: {error}"[:_SHOWN], reply=True) from error

    def _reply(self, path: str, body: dict[str, Any] | None) -> httpx.Response:
        try:
            if body is None:
                return self._client.get(self.url + path)
            return self._client.post(self.url + path, json=body)
        except httpx.ConnectError as error:
            if body is None:  # the first look at a service that is not there
                fix = f"start it: `{self.start_hint}`, or set {self.key}"
                raise PipelineError(f"no service at {self.url}: {error}", fix=fix) from error
            raise _TryAgain(str(error)) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _TryAgain(str(error) or type(error).__name__) from error

    def _shown(self, reply: httpx.Response) -> str:
        text = " ".join(reply.text.split())
        return (text.replace(self._key, "***") if self._key else text)[:_SHOWN]


def _host_of(url: str, key: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise PipelineError(f"{key}={url!r} is no address: {error}", fix="write http://HOST:PORT") from error
    if parts.userinfo:
        raise PipelineError(
            f"{key} holds a user's name: it would be written into results and logs",
            fix="put the key into an environment variable and name that in nim_api_key_env",
        )
    if parts.scheme not in ("http", "https") or not parts.host:
        raise PipelineError(f"{key}={url!r} is no http(s) address", fix="write http://HOST:PORT")
    return parts.host


def _key_of(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key or not (key.isascii() and key.isprintable()) or " " in key:
        problem = "holds something that cannot be an API key (blanks or odd letters)" if key else "is not set"
        raise PipelineError(
            f"nim_api_key_env={variable}: this environment variable {problem}", fix=f"export {variable}=…"
        )
    return key


def _refusal_fix(status: int, key: str) -> str:
    if status in (401, 403):
        return "name the environment variable that holds the service's API key: nim_api_key_env=NAME"
    if status in (404, 405):
        return f"does the service speak another API (nim_api), or does {key} hold a path such as /v1 (leave it out)?"
    if 300 <= status < 400:
        return f"set {key} to the address that the service itself has: redirects are not followed"
    return "texts too long or too many for the service (nim_truncate, nim_batch_size), or another API (nim_api)?"


def _retry_after(reply: httpx.Response) -> float | None:
    """Seconds the server asks us to wait: a number, or a date."""
    said = reply.headers.get("retry-after")
    if not said:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None

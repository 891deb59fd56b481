"""An LLM behind an OpenAI-compatible API says whether passages answer questions."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai

from pipeline.errors import PipelineError
from pipeline.llm import is_loopback
from pipeline.run.progress import progress
from pipeline_prep.mining.rules import full_text
from pipeline_prep.mining.task import MiningTask
from pipeline_prep.mining.verdicts import VerdictJournal, probability, verdict_key

log = logging.getLogger("pipeline")

JOURNAL = "rescore_journal.jsonl"
FAILURES_IN_A_ROW = 5
"""After so many failed calls without one success the endpoint is taken for broken."""
CALLS_AT_ONCE = 8
_PAIRS_AT_ONCE = 1024
_NO_KEY = "none"  # the client insists on a key; servers that need none ignore it
_PROMPT = files("pipeline_prep.mining").joinpath("prompts", "answers.txt").read_text(encoding="utf-8").strip()
_SCHEMA = {
    "type": "object",
    "properties": {"answers": {"type": "boolean"}, "confidence": {"type": "number"}},
    "required": ["answers", "confidence"],
    "additionalProperties": False,
}
_FORMAT = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": _SCHEMA, "strict": True}}
_FULL: dict[str, Any] = {"temperature": 0, "response_format": _FORMAT}
_CONTINUE = "then give the same command again: finished calls are in the journal and are not repeated"

Pairs = dict[str, tuple[str, str]]
"""Key of the journal -> question and passage."""


class LlmRescorer:
    """One call for each pair; replies go into `rescore_journal.jsonl` of `folder` before they are used.

    `timeout` (seconds) and `max_retries` are the client's: it waits longer before each repeat. The key is read from
    the environment variable `key_env` and stands nowhere else.

    Raises:
        PipelineError: no address; the address is not this machine and `allow_remote` is not set; no key.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        folder: Path,
        *,
        key_env: str | None = None,
        allow_remote: bool = False,
        timeout: float = 120.0,
        max_retries: int = 4,
    ) -> None:
        local = _check_may_leave(base_url, allow_remote)
        self.model, self.base_url, self._key = model, base_url.rstrip("/"), _key_of(key_env)
        # Neither a proxy from the environment nor a redirect may carry texts away from an address on this machine.
        http = openai.DefaultHttpxClient(trust_env=not local, follow_redirects=not local)
        self._client = openai.OpenAI(
            api_key=self._key, base_url=self.base_url, timeout=timeout, max_retries=max_retries, http_client=http
        )
        self._journal = VerdictJournal(folder / JOURNAL)
        self._form: dict[str, Any] = _FULL
        self._proven = False
        self._failed_in_a_row = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        self._client.close()
        self._journal.close()

    def probabilities(self, task: MiningTask, row: np.ndarray, passage: np.ndarray) -> np.ndarray:
        """fp32 [P]; NaN where a call failed (it is made again next time) or its reply holds no verdict.

        Raises:
            PipelineError: the endpoint as a whole does not work; finished calls are kept.
        """
        found = np.full(len(row), np.nan, np.float32)
        with progress(f"asking {self.model}", len(row), "pairs") as bar:
            for start in range(0, len(row), _PAIRS_AT_ONCE):
                part = slice(start, start + _PAIRS_AT_ONCE)
                keys, missing = self._pairs(task, row[part], passage[part])
                self._ask_all(missing)
                found[part] = [probability(self._journal[key]) if key in self._journal else np.nan for key in keys]
                bar.advance(len(keys))
        unknown = int(np.isnan(found).sum())
        if unknown:
            log.warning(f"{self.model} gave no verdict on {unknown:,} of {len(row):,} pairs: they stay as they are")
        return found

    def _pairs(self, task: MiningTask, row: np.ndarray, passage: np.ndarray) -> tuple[list[str], Pairs]:
        """The key of each pair, and the pairs that were never asked about."""
        keys, missing = [], {}
        for question, number in zip(row.tolist(), passage.tolist(), strict=True):
            texts = task.questions[question], full_text(task, number)
            keys.append(verdict_key(self.model, _PROMPT, *texts))
            if keys[-1] not in self._journal:
                missing[keys[-1]] = texts
        return keys, missing

    def _ask_all(self, missing: Pairs) -> None:
        waiting = list(missing.items())
        while waiting and not self._proven:  # one call after the other until it is known what the endpoint takes
            key, texts = waiting.pop(0)
            self._ask(key, *texts)
        with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            calls = [pool.submit(self._ask, key, *texts) for key, texts in waiting]
            try:
                for call in as_completed(calls):
                    call.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # calls under way still reach the journal
                raise

    def _ask(self, key: str, question: str, passage: str) -> None:
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            return  # the run is ending
        prompt = Template(_PROMPT).substitute(question=question, passage=passage)
        try:
            reply = self._reply([{"role": "user", "content": prompt}])
        except _CallFailed as error:
            self._count(str(error))
            return
        self._journal.put(key, self.model, reply)
        self._proven = True
        readable = not np.isnan(probability(reply))
        self._count("" if readable else f"a reply without a verdict: {self._short(reply)!r}")

    def _reply(self, messages: list[dict[str, str]]) -> str:
        try:
            return self._send(messages)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if self._proven or not self._form:
                raise _CallFailed(self._short(error)) from error
        log.info(f"{self.base_url} takes no response_format or no temperature: the prompt alone asks for JSON")
        self._form = {}
        try:
            return self._send(messages)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            self._form = _FULL
            raise _CallFailed(self._short(error)) from error

    def _send(self, messages: list[dict[str, str]]) -> str:
        try:
            answer = self._client.chat.completions.create(model=self.model, messages=messages, **self._form)
            return answer.choices[0].message.content or ""
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            raise
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise PipelineError(
                f"{self.base_url} refused the API key (HTTP {error.status_code}) for rescore_model={self.model}",
                fix=f"check the key in the variable that rescore_api_key_env names, {_CONTINUE}",
            ) from None
        except openai.NotFoundError:
            raise PipelineError(
                f"{self.base_url} has no such model or path (HTTP 404): rescore_model={self.model}",
                fix=f"see {self.base_url}/models for names, {_CONTINUE}",
            ) from None
        except openai.APIConnectionError as error:  # a timeout too
            cause = self._short(error.__cause__ or error)
            if self._proven or isinstance(error, openai.APITimeoutError):
                raise _CallFailed(f"no answer ({cause})") from error
            raise PipelineError(f"cannot reach {self.base_url} ({cause})", fix=f"start it, {_CONTINUE}") from None
        except (openai.OpenAIError, ValueError) as error:
            raise _CallFailed(self._short(error)) from error
        except (AttributeError, IndexError, TypeError) as error:
            raise _CallFailed("an answer that is no chat completion") from error

    def _count(self, failure: str) -> None:
        """Count a call; "" is a success.

        Raises:
            PipelineError: too many failures without a success between them.
        """
        with self._lock:
            self._failed_in_a_row = self._failed_in_a_row + 1 if failure else 0
            broken = self._failed_in_a_row >= FAILURES_IN_A_ROW
        if failure:
            log.warning(f"rescoring: a call failed: {failure}")
        if broken:
            raise PipelineError(
                f"{self.base_url}: {FAILURES_IN_A_ROW} calls in a row failed, the last with {failure}",
                fix=f"see that rescore_base_url and rescore_model={self.model} work, {_CONTINUE}",
            )

    def _short(self, what: object) -> str:
        text = " ".join(str(what).split())[:300]
        return text if self._key == _NO_KEY else text.replace(self._key, "***")


class _CallFailed(Exception):
    """One call got no answer although the client tried again; others may succeed."""


def _check_may_leave(base_url: str, allow_remote: bool) -> bool:
    """Whether `base_url` is on this machine."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PipelineError(
            f"rescore_base_url={base_url!r} is no address of an API", fix="give one like http://localhost:8000/v1"
        )
    local = is_loopback(parts.hostname)
    what = f"every question and the text of its nearest passages (rescore_top of them) will be sent to {parts.hostname}"
    if not local:
        log.info(f"rescoring: {what}")
    if not local and not allow_remote:
        raise PipelineError(
            f"rescore=llm: {what}, but allow_remote=no",
            fix="set allow_remote=yes if they may leave this machine, or give a rescore_base_url on localhost",
        )
    return local


def _key_of(key_env: str | None) -> str:
    key = os.environ.get(key_env, "").strip() if key_env else _NO_KEY
    if not key:
        raise PipelineError(
            f"rescore_api_key_env={key_env}: this environment variable is not set", fix=f"export {key_env}=…"
        )
    return key

"""What an LLM said of pairs of question and passage, kept on disk before it is used: nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import threading
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.llm import parse_object

log = logging.getLogger("pipeline")


def verdict_key(model: str, prompt: str, question: str, passage: str) -> str:
    """sha256 over everything that determines the verdict; `prompt` is the template's whole text."""
    return hashlib.sha256(json.dumps([model, prompt, question, passage]).encode()).hexdigest()


def probability(reply: str) -> float:
    """The probability that the passage answers the question, from a reply with `answers` and `confidence`.

    NaN where there is no readable verdict. Some models give the probability of "yes" where the certainty of the verdict
    is asked for; both are read alike, so that a "no" is never above 0.5 and a "yes" never below.
    """
    said = parse_object(reply) or {}
    answers, confidence = said.get("answers"), said.get("confidence", 1.0)
    if isinstance(answers, str):
        answers = {"true": True, "yes": True, "false": False, "no": False}.get(answers.strip().lower())
    try:
        sure = float(confidence)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    if not isinstance(answers, bool) or not 0 <= sure <= 1:
        return math.nan
    sure = max(sure, 1 - sure)
    return sure if answers else 1 - sure


class VerdictJournal:
    """One JSON line for each reply, flushed to the disk one by one; safe to use from several threads.

    A last line that was torn by a crash is cut off; other lines that cannot be read are left out and counted in the
    log, and their calls are made again.

    Raises:
        PipelineError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._replies: dict[str, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._stream = path.open("a+b")
            self._read()
        except OSError as error:
            raise self._failed("read", error) from error

    def __len__(self) -> int:
        return len(self._replies)

    def __contains__(self, key: str) -> bool:
        return key in self._replies

    def __getitem__(self, key: str) -> str:
        return self._replies[key]

    def put(self, key: str, model: str, reply: str) -> None:
        """Return only when the reply is on the disk."""
        line = json.dumps({"key": key, "model": model, "reply": reply}) + "\n"
        with self._lock:
            try:
                self._stream.write(line.encode())
                self._stream.flush()
                os.fsync(self._stream.fileno())
            except OSError as error:
                raise self._failed("write", error) from error
            self._replies[key] = reply

    def close(self) -> None:
        self._stream.close()

    def _read(self) -> None:
        self._stream.seek(0)
        whole, broken = 0, 0
        for line in self._stream:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            entry = _entry(line)
            if entry:
                self._replies[entry[0]] = entry[1]
            else:
                broken += 1
        self._stream.truncate(whole)
        if broken:
            log.warning(f"{self.path}: {broken:,} lines cannot be read; these calls are made again")

    def _failed(self, what: str, error: OSError) -> PipelineError:
        return PipelineError(
            f"cannot {what} {self.path}: {error.strerror}", fix="see the disk; then give the command again"
        )


def _entry(line: bytes) -> tuple[str, str] | None:
    try:
        entry: Any = json.loads(line)
        key, reply = entry["key"], entry["reply"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (key, reply) if isinstance(key, str) and isinstance(reply, str) else None

"""Every finished call, kept on disk before its answer is used: nothing is paid for twice.

The key of a call is a hash of everything that determines its answer, so a killed run, a changed document or a longer
corpus pays only for what is new. Keys of an API are never part of it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

FORMAT = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    answer TEXT NOT NULL,
    finish_reason TEXT,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    finished REAL NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Reply:
    """A finished call: the text (or encoded vector), why it stopped, tokens in and out."""

    text: str
    finish_reason: str | None
    input_tokens: int
    output_tokens: int


def call_key(**parts: Any) -> str:
    """sha256 over role, model, provider, messages, schema, sampling and seed."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Journal:
    """A durable store of finished calls. Use as a context manager.

    Raises:
        PipelineError: the file is damaged or from a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            # FULL, because in WAL mode NORMAL only syncs at checkpoints: after a power cut the last answers, already
            # paid for, would be gone. One fsync costs a millisecond, an answer costs seconds and money.
            self._db.execute("PRAGMA synchronous=FULL")
            self._check_format()
            self._db.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            raise PipelineError(
                f"{path} is damaged: {error}", fix="move it away; the calls in it will be made again"
            ) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM calls").fetchone()[0]

    def get(self, key: str) -> Reply | None:
        row = self._db.execute(
            "SELECT answer, finish_reason, input_tokens, output_tokens FROM calls WHERE key = ?", (key,)
        ).fetchone()
        return Reply(*row) if row else None

    def put(self, key: str, role: str, model: str, reply: Reply) -> None:
        """Return only when the answer is on the disk.

        Raises:
            PipelineError: it cannot be written (a full disk); what was written before stays.
        """
        row = (key, role, model, reply.text, reply.finish_reason, reply.input_tokens, reply.output_tokens, time.time())
        try:
            self._db.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise PipelineError(
                f"cannot write {self.path}: {error}", fix="see the disk; then give the command again"
            ) from error

    def put_many(self, role: str, model: str, replies: dict[str, Reply]) -> None:
        """All of them or none: the answers of one batched call."""
        self._db.execute("BEGIN")
        try:
            for key, reply in replies.items():
                self.put(key, role, model, reply)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _check_format(self) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT:
            raise PipelineError(f"{self.path} was written by a newer version", fix="update your checkout")
        self._db.execute(f"PRAGMA user_version={FORMAT}")

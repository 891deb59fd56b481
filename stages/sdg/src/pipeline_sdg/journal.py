"""Every finished call, kept on disk before its answer is used: nothing is paid for twice.

The key of a call is a hash of everything that determines its answer, so a killed run, a changed document or a longer
corpus pays only for what is new. Keys of an API are never part of it.

Why SQLite with a write-ahead log: answers are found by key without being held in memory, several processes of one
machine may write, and a process killed at any moment leaves a whole file. `synchronous=FULL`, because in WAL mode
NORMAL syncs at checkpoints only: after a power cut the last answers, already paid for, would be gone. One commit of
its own for each answer took 5.6 ms of the event loop and 0.2 ms of CPU here. So a thread waits for the disk, and
answers that come within a few milliseconds share a commit: at 500 answers a second 0.14 ms of CPU for each, which
waits 3 ms (median; 9 ms for the slowest hundredth).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

FORMAT = 2
"""1 had no table `formats`; such files are opened and get it."""
_BUSY_SECONDS = 60
"""How long another process may hold the file."""
_GATHER_SECONDS = 0.004
"""How long a commit waits for more answers to share it."""
_TABLES = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    answer TEXT NOT NULL,
    finish_reason TEXT,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    finished REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS formats (
    address TEXT NOT NULL,
    model TEXT NOT NULL,
    form TEXT NOT NULL,
    PRIMARY KEY (address, model)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Reply:
    """A finished call: the text (or encoded vector), why it stopped, tokens in and out."""

    text: str
    finish_reason: str | None
    input_tokens: int
    output_tokens: int


Row = tuple[str, str, str, Reply]
"""key, role, model, answer."""


def call_key(**parts: Any) -> str:
    """sha256 over role, model, provider, messages, schema, sampling and seed."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Journal:
    """A durable store of finished calls. Use as a context manager.

    `others` are journals that are read as well (earlier runs, other shards) and get no answers. `counted`: what they
    cost is part of what this one has spent.

    Raises:
        PipelineError: a file is damaged or from a newer version.
    """

    def __init__(self, path: Path, others: Iterable[Path] = (), counted: bool = True) -> None:
        self.path, self._counted = path, counted
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two connections: a reader must not wait while the writer's thread waits for the disk.
        self._writer, self._write_lock = _open(path), threading.Lock()
        self._readers = [_open(path), *map(_open_other, others)]
        self._waiting: list[tuple[list[Row], asyncio.Future[None]]] = []
        self._flush: asyncio.Task[None] | None = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (*self._readers, self._writer):
            connection.close()

    def __len__(self) -> int:
        """Answers in all files; one that stands in two counts twice."""
        return sum(reader.execute("SELECT count(*) FROM calls").fetchone()[0] for reader in self._readers)

    @property
    def empty(self) -> bool:
        """Whether no file holds an answer. Cheaper than to count them."""
        return not any(reader.execute("SELECT 1 FROM calls LIMIT 1").fetchone() for reader in self._readers)

    def get(self, key: str) -> Reply | None:
        row = self._first("SELECT answer, finish_reason, input_tokens, output_tokens FROM calls WHERE key = ?", key)
        return Reply(*row) if row else None

    def knows(self, key: str) -> bool:
        """Whether `get` has something, without reading it."""
        return self._first("SELECT 1 FROM calls WHERE key = ?", key) is not None

    def spent(self) -> dict[str, tuple[int, int]]:
        """Tokens (in, out) of everything that was ever paid for, by role; of `others` only if they are `counted`."""
        total: dict[str, tuple[int, int]] = {}
        for role, _, read, written in self._sums(self._readers if self._counted else self._readers[:1]):
            before = total.get(role, (0, 0))
            total[role] = before[0] + read, before[1] + written
        return total

    def means(self, fewest: int) -> dict[str, tuple[float, float]]:
        """Mean tokens (in, out) of an answer, of the roles that have at least `fewest` in one file or more."""
        total: dict[str, list[int]] = {}
        for role, *sums in self._sums(self._readers):
            total[role] = [a + b for a, b in zip(total.get(role, [0, 0, 0]), sums, strict=True)]
        return {
            role: (read / calls, written / calls) for role, (calls, read, written) in total.items() if calls >= fewest
        }

    def form(self, address: str, model: str) -> str | None:
        """The form of request that the model took last, if a run has found it out."""
        row = self._first("SELECT form FROM formats WHERE address = ? AND model = ?", address, model)
        return row[0] if row else None

    def put_form(self, address: str, model: str, form: str) -> None:
        """Keep the form of request that a model takes."""
        self._write("INSERT OR REPLACE INTO formats VALUES (?, ?, ?)", [(address, model, form)])

    def _first(self, query: str, *values: str) -> tuple | None:
        found = (reader.execute(query, values).fetchone() for reader in self._readers)
        return next((row for row in found if row), None)

    @staticmethod
    def _sums(readers: Iterable[sqlite3.Connection]) -> Iterator[tuple[str, int, int, int]]:
        """role, answers, tokens in, tokens out: of each file."""
        query = "SELECT role, count(*), sum(input_tokens), sum(output_tokens) FROM calls GROUP BY role"
        for reader in readers:
            yield from reader.execute(query)

    def put(self, key: str, role: str, model: str, reply: Reply) -> None:
        """Return only when the answer is on the disk.

        Raises:
            PipelineError: it cannot be written (a full disk); what was written before stays.
        """
        self._commit([(key, role, model, reply)])

    def put_many(self, role: str, model: str, replies: dict[str, Reply]) -> None:
        """All of them or none: the answers of one batched call."""
        self._commit([(key, role, model, reply) for key, reply in replies.items()])

    async def keep(self, role: str, model: str, replies: dict[str, Reply]) -> None:
        """`put_many` for many callers at once: they share commits, and nobody else waits for the disk."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(([(key, role, model, reply) for key, reply in replies.items()], done))
        if self._flush is None:
            self._flush = asyncio.create_task(self._write_waiting())
        await done

    async def _write_waiting(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(_GATHER_SECONDS)
                group, self._waiting = self._waiting, []
                error: BaseException | None = None
                try:
                    await asyncio.to_thread(self._commit, [row for rows, _ in group for row in rows])
                except BaseException as failed:
                    error = failed
                for _, done in group:
                    if not done.done():
                        done.set_exception(error) if error else done.set_result(None)
        finally:
            self._flush = None

    def _commit(self, rows: list[Row]) -> None:
        now = time.time()
        values = [
            (key, role, model, reply.text, reply.finish_reason, reply.input_tokens, reply.output_tokens, now)
            for key, role, model, reply in rows
        ]
        self._write("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def _write(self, statement: str, rows: list[tuple]) -> None:
        try:
            with self._write_lock, self._writer:
                self._writer.execute("BEGIN IMMEDIATE")
                self._writer.executemany(statement, rows)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise PipelineError(
                f"cannot write {self.path}: {error}", fix="see the disk; then give the command again"
            ) from error


def _open_other(path: Path) -> sqlite3.Connection:
    """A journal that is only read. One without a log is opened as a file that nobody changes: no file appears beside
    it, several machines may do so, and hundreds of shards do not run into the limit of open files."""
    log = path.with_name(f"{path.name}-wal")
    if log.is_file() and log.stat().st_size:
        return _open(path)
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None, check_same_thread=False
        )
        if _check_format(path, connection) == FORMAT:
            return connection
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    connection.close()
    return _open(path)  # of an earlier version: it lacks a table


def _check_format(path: Path, connection: sqlite3.Connection) -> int:
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > FORMAT:
        raise PipelineError(f"{path} was written by a newer version", fix="update your checkout")
    return found


def _damaged(path: Path, error: sqlite3.Error) -> PipelineError:
    if "unable to open" in str(error):
        return PipelineError(f"{path} cannot be opened: {error}", fix="see its permissions, and `ulimit -n`")
    return PipelineError(f"{path} is damaged: {error}", fix="move it away; the calls in it will be made again")


def _open(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        if _check_format(path, connection) < FORMAT:
            connection.executescript(_TABLES)
            connection.execute(f"PRAGMA user_version={FORMAT}")
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    return connection

"""The endpoint of sdg.py: a process that answers every chat call after a fixed delay."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

_ANSWER_CHARACTERS = 1500
"""About what a few questions and answers take."""


@dataclass(frozen=True)
class Behaviour:
    """`delay` seconds before each answer; a call beyond `limit` at once gets HTTP 429, as does every call of the
    `storm` (begin and end, in seconds from the first call). With `pairs` the answer is a question about what is
    asked, in the form of the stage."""

    delay: float
    limit: int
    storm: tuple[float, float] | None = None
    pairs: bool = False


@dataclass(frozen=True)
class Seen:
    """What the server saw. `recovery`: seconds from the end of the storm to `limit` calls at once, or None;
    `per_second`: answers in each second from the first call."""

    answered: int
    refused: int
    most_at_once: int
    recovery: float | None
    per_second: list[int]


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[tuple[str, Callable[[], Seen]]]:
    """The base_url of a server in a process of its own, and a function that asks what it has seen so far."""
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(behaviour, there), daemon=True)
    process.start()
    there.close()

    def seen() -> Seen:
        here.send(None)
        return here.recv()

    try:
        yield f"http://127.0.0.1:{here.recv()}/v1", seen
    finally:
        here.close()  # the server ends with it, also when we are killed
        process.join()


class _Counts:
    """Decides about each call and counts."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._began: float | None = None
        self._at_once = self._most = self._refused = 0
        self._recovery: float | None = None
        self._per_second: Counter[int] = Counter()

    def admit(self) -> bool:
        now = self._seconds()
        begin, end = self._behaviour.storm or (0.0, 0.0)
        if begin <= now < end or self._at_once == self._behaviour.limit:
            self._refused += 1
            return False
        self._at_once += 1
        self._most = max(self._most, self._at_once)
        if self._behaviour.storm and now >= end and self._at_once == self._behaviour.limit:
            self._recovery = self._recovery if self._recovery is not None else now - end
        return True

    def answered(self) -> None:
        self._at_once -= 1
        self._per_second[int(self._seconds())] += 1

    def seen(self) -> Seen:
        seconds = range(max(self._per_second, default=-1) + 1)
        per_second = [self._per_second[second] for second in seconds]
        return Seen(sum(per_second), self._refused, self._most, self._recovery, per_second)

    def _seconds(self) -> float:
        self._began = self._began or time.monotonic()
        return time.monotonic() - self._began


def _serve(behaviour: Behaviour, pipe: Connection) -> None:
    asyncio.run(_answer_calls(behaviour, pipe))


async def _answer_calls(behaviour: Behaviour, pipe: Connection) -> None:
    loop, counts, over = asyncio.get_running_loop(), _Counts(behaviour), asyncio.Event()

    def asked() -> None:
        try:
            pipe.recv()
            pipe.send(counts.seen())
        except (EOFError, OSError):
            over.set()

    server = await loop.create_server(lambda: _Talk(behaviour, counts), "127.0.0.1", 0)
    loop.add_reader(pipe.fileno(), asked)
    pipe.send(server.sockets[0].getsockname()[1])
    await over.wait()


class _Talk(asyncio.Protocol):
    """One connection, kept open; as little work for a call as can be, for the server shares the machine."""

    def __init__(self, behaviour: Behaviour, counts: _Counts) -> None:
        self._behaviour, self._counts, self._received = behaviour, counts, b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        if len(self._received) == len(head) or len(body) < _length(head):
            return
        self._received = b""
        if self._counts.admit():
            answer = _pair_about(body) if self._behaviour.pairs else _ANSWER
            asyncio.get_running_loop().call_later(self._behaviour.delay, self._answer, answer)
        else:
            self._transport.write(_REFUSAL)

    def _answer(self, answer: bytes) -> None:
        self._counts.answered()
        self._transport.write(answer)


def _length(head: bytes) -> int:
    return int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])


def _response(status: str, document: object) -> bytes:
    body = json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


_REFUSAL = _response("429 Too Many Requests", {"error": {"message": "slow down"}})


def _completion(content: str) -> bytes:
    return _response(
        "200 OK",
        {
            "id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
            ],
            "usage": {"prompt_tokens": 750, "completion_tokens": 375, "total_tokens": 1125},
        },
    )  # fmt: skip


_ANSWER = _completion(json.dumps({"text": "x " * (_ANSWER_CHARACTERS // 2)}))
_SEGMENT = re.compile(r"^- Segment (\d+): (\S+ \S+) .* (\S+) (\S+)\.$", re.MULTILINE)
"""The name at the beginning of a passage of sdg_documents.py, and its last words."""


def _pair_about(body: bytes) -> bytes:
    """One pair about the first passage of the prompt."""
    [number, name, *words], *_ = _SEGMENT.findall(json.loads(body)["messages"][0]["content"])
    pair = {
        "question": f"What does {name} need of {' and '.join(words)}?",
        "answer": f"It needs {' and '.join(words)}.",
        "question_complexity": 3,
        "query_type": "contextual",
        "reasoning_type": "factual",
        "segment_ids": [int(number)],
        "hop_count": 1,
        "hop_contexts": [],
    }
    return _completion(json.dumps({"pairs": [pair]}))

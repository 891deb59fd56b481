"""Servers that break HTTP itself: every one ends in a retry that works or a counted failure, never in a hang."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pipeline_sdg.calls import pacing
from pipeline_sdg.calls.wire import Wire, WireError
from pipeline_sdg.endpoints import QA
from pipeline_sdg.llm import CallFailed

GOOD = json.dumps(
    {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 2}}
).encode()
SCHEMA = {"type": "object"}


def answer(body: bytes = GOOD, length: int | None = None, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


class Script:
    """A socket server: the n-th request gets the n-th act; the last one repeats."""

    def __init__(self) -> None:
        self.acts: list[Callable[[socket.socket], bool]] = []
        self.requests = self.connections = 0
        self.seen = b""
        self._stop = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream:
            while line := stream.readline():
                head = [line]
                while (line := stream.readline()) not in (b"\r\n", b""):
                    head.append(line)
                lengths = [int(item.split(b":")[1]) for item in head if item.lower().startswith(b"content-length")]
                self.seen += b"".join(head) + stream.read(sum(lengths))
                act = self.acts[min(self.requests, len(self.acts) - 1)]
                self.requests += 1
                if not act(client):
                    return

    def says(self, *pieces: bytes, keep: bool = True, pause: float = 0.0) -> Callable[[socket.socket], bool]:
        def act(client: socket.socket) -> bool:
            with contextlib.suppress(OSError):  # the client has given up
                for piece in pieces:
                    client.sendall(piece)
                    if self._stop.wait(pause):
                        return False
                return keep
            return False

        return act

    def hangs(self, client: socket.socket) -> bool:
        self._stop.wait(10)
        return False


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setattr(pacing, "BACKOFF", 0.01)
    server = Script()
    yield server
    server.close()


def ask(caller: Any, text: str = "hello") -> Any:
    return caller.chat(QA, [{"role": "user", "content": text}], SCHEMA)


BROKEN = {
    "closed at once": [b""],
    "half a status line": [b"HTT"],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.6\r\n\r\n"],
    "a body cut short": [answer(GOOD[:20], length=len(GOOD))],
    "a cut chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"],
    "a bad chunk size": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"],
    "a bad length": [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"],
    "truncated JSON": [answer(GOOD[:-9])],
    "not UTF-8": [answer(b'{"choices": "\xff\xfe\xfa"}')],
    "not JSON": [answer(b"<html>busy</html>")],
    "an error with status 200": [answer(b'{"error": {"code": 502}}')],
    "HTTP 500": [answer(b"{}", status="500 Oops")],
    "HTTP 503": [answer(b"{}", status="503 Busy", more="Retry-After: 0\r\n")],
    "HTTP 429": [answer(b"{}", status="429 Slow", more="Retry-After: 0.01\r\n")],
}


@pytest.mark.parametrize("pieces", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_is_asked_for_again(script: Script, calling: Any, pieces: list[bytes]) -> None:
    script.acts = [script.says(*pieces, keep=False), script.says(answer())]
    assert calling(ask, script.url).text == "yes"
    assert script.requests == 2


FAILING = {name: pieces for name, pieces in BROKEN.items() if name != "HTTP 429"}  # that one waits its turn


@pytest.mark.parametrize("pieces", FAILING.values(), ids=FAILING)
def test_an_answer_that_stays_broken_fails_its_call_alone(script: Script, calling: Any, pieces: list[bytes]) -> None:
    script.acts = [script.says(*pieces, keep=False)]

    async def work(caller: Any) -> tuple[int, int]:
        with pytest.raises(CallFailed):
            await ask(caller)
        return caller.usage[QA].calls_failed, caller.usage[QA].retries

    assert calling(work, script.url) == (1, 2)


def test_hangs_and_trickles_end_at_the_timeout(script: Script, calling: Any) -> None:
    whole = answer()
    trickle = script.says(*(whole[index : index + 1] for index in range(len(whole))), pause=0.1)
    script.acts = [script.hangs, trickle, script.says(whole)]
    assert calling(ask, script.url, timeout=0.3).text == "yes"
    assert script.requests == 3


def test_a_half_open_socket_ends_at_the_timeout(script: Script, calling: Any) -> None:
    def half(client: socket.socket) -> bool:
        client.sendall(answer()[:30])
        client.shutdown(socket.SHUT_RD)
        return script.hangs(client)

    script.acts = [half]

    async def work(caller: Any) -> None:
        with pytest.raises(CallFailed, match="timeout"):
            await ask(caller)

    calling(work, script.url, timeout=0.2, max_retries=0)


def test_a_connection_is_used_again_and_one_that_died_idle_is_no_failure(script: Script, calling: Any) -> None:
    script.acts = [script.says(answer()), script.says(answer(), keep=False), script.says(answer())]

    async def work(caller: Any) -> int:
        for number in range(3):
            await ask(caller, str(number))
        return caller.usage[QA].retries

    assert calling(work, script.url) == 0
    assert (script.requests, script.connections) == (3, 2)


def test_every_way_to_mark_the_end_of_a_body_is_understood(script: Script) -> None:
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
    script.acts = [
        script.says(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"),
        script.says(head + b"Connection: close\r\n\r\nab", b"cde", keep=False),
        script.says(head + b"content-length:5\r\n\r\nabcde"),
        script.says(b"HTTP/1.1 204 None\r\n\r\n"),
    ]

    async def work() -> list[bytes]:
        wire = Wire(script.url, "k", proxies=False)
        found = [(await wire.post("/x", b"{}", 5)).body for _ in range(4)]
        wire.close()
        return found

    assert asyncio.run(work()) == [b"abcde", b"abcde", b"abcde", b""]
    assert b"POST /v1/x HTTP/1.1\r\n" in script.seen and b"Authorization: Bearer k\r\n" in script.seen


def test_an_answer_without_end_is_refused(script: Script) -> None:
    script.acts = [script.says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")]

    async def work() -> None:
        wire = Wire(script.url, "k", proxies=False)
        with pytest.raises(WireError, match="99999999999"):
            await wire.post("/x", b"{}", 5)

    asyncio.run(work())


def test_a_proxy_of_the_environment_is_used_for_other_hosts(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = script.url.removesuffix("/v1").replace("http://", "http://me:pass@")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("no_proxy", "")
    script.acts = [script.says(answer(b"[]")), script.says(answer(b"", status="407 Pay"), keep=False)]

    async def work() -> bytes:
        plain = Wire("http://llm.example/v1", "k", proxies=True)
        secure = Wire("https://llm.example/v1", "k", proxies=True)
        body = (await plain.post("/x", b"{}", 5)).body
        with pytest.raises(OSError, match="407"):
            await secure.post("/x", b"{}", 5)
        plain.close()
        return body

    assert asyncio.run(work()) == b"[]"
    assert b"POST http://llm.example:80/v1/x HTTP/1.1" in script.seen
    assert b"CONNECT llm.example:443 HTTP/1.1" in script.seen
    assert script.seen.count(b"Proxy-Authorization: Basic bWU6cGFzcw==") == 2

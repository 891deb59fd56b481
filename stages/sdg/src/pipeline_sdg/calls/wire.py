"""HTTP/1.1 as JSON endpoints need it: POST, one answer, connections kept open.

Why not a library: a call through `openai` cost 1.2 ms of CPU, through the HTTP client under it (httpx2) 0.6 ms, through
the whole of this engine, journal included, 0.24 ms (docs/sdg.md, Speed). We need one method, no redirects, no cookies
and no compression.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import urllib.request
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import certifi

_LARGEST_HEAD = 1 << 18
_LARGEST_BODY = 1 << 28

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class WireError(Exception):
    """What came back is no HTTP answer, or only part of one."""


@dataclass(frozen=True)
class Response:
    """`headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """Connections to one server. `base_url` ends without a slash; a proxy from the environment is used for hosts
    other than this machine (`proxies`), as the documents of HTTP_PROXY, HTTPS_PROXY and NO_PROXY say."""

    def __init__(self, base_url: str, key: str, proxies: bool) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if self._secure else 80)
        self._path = parts.path
        named = f"[{self._host}]" if ":" in self._host else self._host
        self._named = f"{named}:{self._port}"
        self._proxy = _proxy(parts.scheme, self._host) if proxies else None
        lines = [f"Host: {self._named if parts.port else named}", "Content-Type: application/json"]
        lines += ["Accept: application/json", "User-Agent: pipeline-sdg", f"Authorization: Bearer {key}"]
        self._relayed = bool(self._proxy) and not self._secure
        if self._relayed:
            lines += _authorization(self._proxy)
        self._headers = "\r\n".join(lines)
        self._tls = _tls() if self._secure else None
        self._idle: list[Connection] = []

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    async def post(self, path: str, body: bytes, timeout: float) -> Response:
        """The answer to a POST of JSON, whatever its status. `timeout` (seconds) is for all of it: name lookup,
        connection, sending, and the last byte of the answer.

        Raises:
            TimeoutError: it took longer. OSError: no connection. WireError: no whole answer.
        """
        target = self._path + path
        if self._relayed:
            target = f"http://{self._named}{target}"
        request = f"POST {target} HTTP/1.1\r\n{self._headers}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        async with asyncio.timeout(timeout):
            while self._idle:
                connection = self._idle.pop()
                if connection[0].at_eof() or connection[1].is_closing():
                    connection[1].close()
                    continue
                try:
                    return await self._exchange(connection, request)
                except _Stale:
                    break  # closed by the server while it lay idle: this call has reached nobody
            return await self._exchange(await self._connect(), request, fresh=True)

    async def _exchange(self, connection: Connection, request: bytes, fresh: bool = False) -> Response:
        reader, writer = connection
        reusable = False
        try:
            writer.write(request)
            try:
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if not fresh and not getattr(error, "partial", b""):
                    raise _Stale from error
                raise WireError("the connection was closed before an answer came") from error
            while head.split(b" ", 2)[1:2] == [b"100"]:
                head = await reader.readuntil(b"\r\n\r\n")
            status, headers, lasting = _parsed(head)
            body, bounded = await _body(reader, status, headers)
            reusable = lasting and bounded
            return Response(status, headers, body)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise WireError(f"the answer broke off or is no HTTP: {error}") from error
        finally:
            if reusable:
                self._idle.append(connection)
            else:
                writer.close()

    async def _connect(self) -> Connection:
        if not self._proxy:
            return await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=_LARGEST_HEAD)
        proxy = urlsplit(self._proxy)
        reader, writer = await asyncio.open_connection(proxy.hostname, proxy.port or 80, limit=_LARGEST_HEAD)
        if self._secure:
            lines = [f"CONNECT {self._named} HTTP/1.1", f"Host: {self._named}", *_authorization(self._proxy), "", ""]
            try:
                writer.write("\r\n".join(lines).encode())
                status, _, _ = _parsed(await reader.readuntil(b"\r\n\r\n"))
                if status != 200:
                    raise ConnectionRefusedError(f"the proxy {proxy.hostname} answered HTTP {status}")
                await writer.start_tls(self._tls, server_hostname=self._host)
            except BaseException:
                writer.close()
                raise
        return reader, writer


class _Stale(Exception):
    """A kept connection turned out to be closed."""


def _parsed(head: bytes) -> tuple[int, dict[str, str], bool]:
    """Status, headers, and whether the connection may be used again."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"status line {first[:80]!r}")
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    lasting = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return int(rest[:3]), headers, lasting


async def _body(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> tuple[bytes, bool]:
    """The body, and whether its end was marked (else it ended with the connection)."""
    if status in (204, 304):
        return b"", True
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader), True
    if "content-length" in headers:
        return await reader.readexactly(_bounded(int(headers["content-length"]))), True
    parts, size = [], 0
    while part := await reader.read(1 << 16):
        size = _bounded(size + len(part))
        parts.append(part)
    return b"".join(parts), False


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts, total = [], 0
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        total = _bounded(total + size)
        parts.append((await reader.readexactly(_bounded(size) + 2))[:-2])
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return b"".join(parts)


def _bounded(size: int) -> int:
    if not 0 <= size <= _LARGEST_BODY:
        raise ValueError(f"a body of {size} bytes")
    return size


def _proxy(scheme: str, host: str) -> str | None:
    if urllib.request.proxy_bypass(host):
        return None
    address = urllib.request.getproxies().get(scheme)
    return address if not address or "://" in address else f"http://{address}"


def _authorization(proxy: str | None) -> list[str]:
    parts = urlsplit(proxy or "")
    if parts.username is None:
        return []
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return [f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}"]


def _tls() -> ssl.SSLContext:
    known = ssl.get_default_verify_paths()
    # A slim container has no certificates of its own; the packaged ones stand in.
    return ssl.create_default_context(cafile=None if known.cafile or known.capath else certifi.where())

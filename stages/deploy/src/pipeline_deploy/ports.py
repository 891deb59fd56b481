"""Take a port, or say who has it."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from pipeline.errors import PipelineError

_LISTENING = "0A"


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address; it listens only once the server is ready, so nobody waits in vain.

    Raises:
        PipelineError: the port is taken (and by whom), or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise PipelineError(
            f"bind_address={host}: {error.strerror}", fix="use 127.0.0.1, or 0.0.0.0 for all"
        ) from error
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _explained(error, host, port) from error
    return bound


def check_port(host: str, port: int) -> None:
    """Raises PipelineError if nothing could listen there now."""
    with bind(host, port) as probe:
        try:
            probe.listen(1)  # on some systems two sockets may bind, but only one may listen
        except OSError as error:
            raise _explained(error, host, port) from error


def reachable_url(host: str, port: int) -> str:
    """The address for clients on this machine: `any address` is not one that can be called."""
    shown = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host)
    return f"http://{shown or (f'[{host}]' if ':' in host else host)}:{port}"


def _explained(error: OSError, host: str, port: int) -> PipelineError:
    if error.errno == errno.EADDRINUSE:
        return in_use(host, port)
    if error.errno == errno.EACCES:
        return PipelineError(f"port {port} needs more rights than you have", fix="set host_port to 1024 or more")
    return PipelineError(
        f"cannot listen on {host}:{port}: {error.strerror}",
        fix="bind_address must be an address of this machine, such as 127.0.0.1",
    )


def in_use(host: str, port: int) -> PipelineError:
    """The error that names the holder and a port that is free."""
    holder = port_holder(port)
    fix = f"stop it, or set host_port={_free_port(host)}"
    return PipelineError(f"port {port} on {host} is in use{f' by {holder}' if holder else ''}", fix=fix)


def port_holder(port: int) -> str | None:
    """`process 123 (python -m …)` if the system tells (Linux, own processes), else None."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening_inodes(table, port)}
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f"process {process.name} ({command[:100]})"
        except OSError:  # ended meanwhile, or another user's
            continue
    return None


def _listening_inodes(table: str, port: int) -> set[str]:
    try:
        rows = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return set()
    fields = [row.split() for row in rows]
    listening = [row for row in fields if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port]
    return {f"socket:[{row[9]}]" for row in listening}


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]

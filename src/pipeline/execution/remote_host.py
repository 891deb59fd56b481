"""A shell where jobs are submitted: on this machine, or on a cluster's login node through ssh."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.execution.names import looks_secret

_UNREACHABLE = 255
"""Exit code of ssh itself, as against the command it ran."""
_BEGIN = "--- pipeline ---"
"""Comes before a script's own output: what a login prints of itself is cut away with it."""


class HostUnreachable(PipelineError):
    """No connection, or it broke: what was asked for may or may not have happened."""


@dataclass(frozen=True)
class Host:
    """Runs bash scripts. `shell` is the command line that a script is appended to."""

    name: str
    shell: tuple[str, ...]
    remote: bool = False

    def run(self, script: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a script with `data` on its standard input; its exit code is the caller's to judge.

        A process of its own session: Ctrl-C must reach us alone, and leave us a way to cancel the jobs.

        Raises:
            HostUnreachable: ssh did not get through.
            PipelineError: there is no ssh (or bash) here.
        """
        last = "bash -c " + shlex.quote(f"echo '{_BEGIN}'\n{script}") if self.remote else script
        try:
            done = subprocess.run(
                [*self.shell, last],
                input=data if data is not None else b"",
                capture_output=True,
                env=_without_secrets(),
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise PipelineError(f"there is no {self.shell[0]} on this machine", fix="install it") from error
        if self.remote and done.returncode == _UNREACHABLE:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise HostUnreachable(
                f"cannot reach {self.name}: {said[-1] if said else 'ssh gave no reason'}",
                fix=f"make `{shlex.join(self.shell)} true` work without a question: host, user, identity, port",
            )
        if self.remote:
            done.stdout = done.stdout.partition(f"{_BEGIN}\n".encode())[2]
        return done

    def must(self, script: str, data: bytes | None = None) -> str:
        """Run a script that has to succeed; its standard output.

        Raises:
            PipelineError: it failed; the message is what it said.
        """
        done = self.run(script, data)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
            raise PipelineError(f"{self.name}: {said}")
        return done.stdout.decode(errors="replace")


@contextmanager
def reach(
    tunnel: str | None, host: str = "", user: str = "", identity: str = "", port: int | None = None
) -> Iterator[Host]:
    """The host of a profile, while it is needed: with `tunnel="ssh"` the named one, else this machine."""
    if not tunnel:
        yield Host("this machine", ("bash", "-c"))
        return
    with tempfile.TemporaryDirectory(prefix="pipeline-ssh-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ssh = ssh_command(host, user, identity, port)
        shared = [*ssh[:1], "-o", f"ControlPath={folder}/%C", *ssh[1:]]
        try:
            yield Host(ssh[-1], tuple(shared), remote=True)
        finally:
            _close(shared, Path(folder))


def ssh_command(host: str, user: str = "", identity: str = "", port: int | None = None) -> list[str]:
    """ssh to a host, without questions; one connection serves all commands of a run (with a ControlPath)."""
    options = ["BatchMode=yes", "ConnectTimeout=30", "StrictHostKeyChecking=accept-new", "ServerAliveInterval=15"]
    options += ["ControlMaster=auto", "ControlPersist=60"]
    command = ["ssh", *(part for option in options for part in ("-o", option))]
    if identity:
        command += ["-i", str(Path(identity).expanduser())]
    if port:
        command += ["-p", str(port)]
    return [*command, "--", f"{user}@{host}" if user else host]


def _close(ssh: list[str], sockets: Path) -> None:
    if any(sockets.iterdir()):
        subprocess.run([*ssh[:-2], "-O", "exit", *ssh[-2:]], capture_output=True, env=_without_secrets())


def _without_secrets() -> dict[str, str]:
    """Our environment for a child that submits: Slurm keeps what sbatch is started with."""
    return {name: value for name, value in os.environ.items() if not looks_secret(name)}

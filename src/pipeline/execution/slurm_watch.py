"""Follow Slurm jobs: their logs as they grow, their states, and how they ended."""

from __future__ import annotations

import codecs
import logging
import shlex
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.errors import PipelineError
from pipeline.execution.remote_host import Host, HostUnreachable
from pipeline.execution.slurm_script import Job

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
_STATE_EVERY = 5
"""Looks at the logs for one question to Slurm, whose controller has other users to answer."""
_CHUNK = 1 << 20
_LOST_AFTER = 10
"""Broken connections in a row after which we stop following."""
_ENDED = frozenset(
    {"COMPLETED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "CANCELLED", "DEADLINE", "BOOT_FAIL"}
)
_MEANING = {
    "TIMEOUT": "it reached its time limit; ask for more with run.env.time=HH:MM:SS",
    "OUT_OF_MEMORY": "it needed more memory than the job had; ask for more with run.env.mem=64G",
    "NODE_FAIL": "one of its nodes failed; give the command again",
    "PREEMPTED": "a job with precedence took its nodes; give the command again",
    "CANCELLED": "somebody cancelled it",
    "DEADLINE": "it could not end before its deadline",
    "BOOT_FAIL": "its nodes did not start; give the command again",
}
UNKNOWN = "UNKNOWN"


@dataclass
class Follower:
    """Follows one submitted job until it has ended."""

    host: Host
    job: Job
    job_id: str
    _read: list[int] = field(default_factory=lambda: [0, 0])
    _decoders: list[codecs.IncrementalDecoder] = field(default_factory=lambda: [_utf8(), _utf8()])
    _said: tuple[str, str] = ("", "")

    def follow(self) -> int:
        """Show the job's logs until it ends. Returns the stage's exit code.

        A job that was stopped from outside writes no exit code: then its state decides, seen three times, because a
        shared file system may show a file late.

        Raises:
            PipelineError: Slurm does not know the job any more, or the connection stays broken.
        """
        ended, looks, lost = 0, 0, 0
        while True:
            try:
                code = self._show_new_output()
                asked = code is None and (looks % _STATE_EVERY == 0 or ended)
                state = self._state() if asked else self._said
                lost = 0
            except HostUnreachable as error:
                lost += 1
                if lost == _LOST_AFTER:
                    raise PipelineError(f"{error.message}; job {self.job_id} goes on", fix=self.hints()) from error
                time.sleep(POLL_SECONDS)
                continue
            if code is not None:
                self._show_new_output()
                return self._report(code) if code else 0
            self._note(state)
            ended = ended + 1 if state[0] in _ENDED or state[0] == UNKNOWN else 0
            if ended == 3:
                return self._report(None)
            looks += 1
            time.sleep(POLL_SECONDS)

    def hints(self) -> str:
        return looking_hints(self.host, [self.job], [self.job_id])

    def _show_new_output(self) -> int | None:
        """Copy all that the logs have more than before to our own streams; the exit code if the job has left one."""
        while True:
            code, more = self._show_some()
            if not more:
                return code

    def _show_some(self) -> tuple[int | None, bool]:
        """As much new output as one answer should hold: (exit code, whether there may be more)."""
        script = f"cat {shlex.quote(self.job.exit_file)} 2>/dev/null || echo -\n"
        for path, start in zip((self.job.stdout, self.job.stderr), self._read, strict=True):
            script += f"s=$(stat -Lc %s {shlex.quote(path)} 2>/dev/null || echo 0); n=$((s - {start}))\n"
            script += f"[ $n -gt 0 ] || n=0; [ $n -lt {_CHUNK} ] || n={_CHUNK}; echo $n\n"
            script += f"[ $n = 0 ] || tail -c +{start + 1} {shlex.quote(path)} | head -c $n\n"
        rest = self.host.run(script).stdout
        code, _, rest = rest.partition(b"\n")
        more = False
        for index, stream in enumerate((sys.stdout, sys.stderr)):
            count, _, rest = rest.partition(b"\n")
            size = int(count or 0)
            stream.write(self._decoders[index].decode(rest[:size]))
            stream.flush()
            self._read[index] += size
            rest = rest[size:]
            more |= size == _CHUNK
        return int(code) if code.strip().isdigit() else None, more

    def _state(self) -> tuple[str, str]:
        return state_of(self.host, self.job_id)

    def _note(self, state: tuple[str, str]) -> None:
        if state != self._said:
            reason = f" ({state[1]})" if state[1] not in ("", "None") else ""
            log.info(f"job {self.job_id} ({self.job.name}): {state[0]}{reason}")
            self._said = state

    def _report(self, code: int | None) -> int:
        """Name the state behind a failure; the exit code of the stage, or 1 when it was never written."""
        state = self._final_state()
        if state == "COMPLETED" and code is None:
            return 0
        if state == UNKNOWN and code is None:
            raise PipelineError(f"Slurm knows nothing of job {self.job_id} and it left no exit code", fix=self.hints())
        if state in _MEANING:
            log.error(f"job {self.job_id} ({self.job.name}): {state}: {_MEANING[state]}")
        return code or 1

    def _final_state(self) -> str:
        state = self._said[0] or UNKNOWN
        for _ in range(5):
            with suppress(HostUnreachable):
                state, _ = self._state()
            if state in _ENDED:
                break
            time.sleep(min(POLL_SECONDS, 1.0))
        return state


def _utf8() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


def state_of(host: Host, job_id: str) -> tuple[str, str]:
    """A job's state and the reason for it: `squeue` for a while after its end, then `sacct` where accounts are kept.

    Raises:
        HostUnreachable: Slurm did not answer; that it does not know the job would be an answer.
    """
    number = shlex.quote(job_id)
    script = f"said=$(squeue --noheader --states=all --jobs={number} --format='%T %r'); code=$?\n"
    script += '[ -n "$said" ] || '
    script += f"said=$(sacct --noheader --allocations --parsable2 --jobs={number} --format=State 2>/dev/null)\n"
    script += 'echo $code; echo "$said" | head -n 1'
    done = host.run(script)
    code, _, said = done.stdout.decode(errors="replace").partition("\n")
    state, _, reason = said.strip().partition(" ")
    errors = done.stderr.decode(errors="replace").strip()
    if not state and code != "0" and "Invalid job id" not in errors:
        raise HostUnreachable(f"{host.name}: squeue does not answer: {errors.rpartition(chr(10))[2]}")
    return state.rstrip("+") or UNKNOWN, reason


def looking_hints(host: Host, jobs: list[Job], job_ids: list[str]) -> str:
    """The commands with which a person looks at jobs and stops them."""
    ids = ",".join(job_ids)
    where = f" (on {host.name})" if host.remote else ""
    lines = [f"state{where}: squeue --states=all --jobs={ids}"]
    lines += [f"log: tail -F {job.stdout} {job.stderr}" for job in jobs]
    return "\n".join([*lines, f"stop: scancel {' '.join(job_ids)}"])

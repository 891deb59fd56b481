"""Bring code, job files and secrets to the far side and submit the jobs, each after the one before it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from pipeline.config import is_file_name
from pipeline.errors import PipelineError
from pipeline.execution.checkout import content_hash, packed_files, packed_texts, source_files
from pipeline.execution.environment import environment_for, secret_file
from pipeline.execution.interrupts import Interrupts
from pipeline.execution.own_values import refuse_homes, refuse_secrets
from pipeline.execution.plan import PlannedInput
from pipeline.execution.profile import Profile
from pipeline.execution.remote_host import Host
from pipeline.execution.slurm_jobs import files_of, jobs_of, needed_inputs, places_of
from pipeline.execution.slurm_script import Job, Places, cleanup_script
from pipeline.execution.tasks import Task
from pipeline.family import STAGES
from pipeline.home import workspace

log = logging.getLogger(__name__)

_OLDEST_UV = "0.9"
_UV_PLACES = ("uv", "~/.local/bin/uv", "~/.cargo/bin/uv")


class Submission:
    """Tasks on their way to Slurm: upload, submit, withdraw."""

    def __init__(self, host: Host, profile: Profile, tasks: Sequence[Task], detached: bool) -> None:
        self.host, self.profile, self.tasks, self.detached = host, profile, tasks, detached
        self.jobs: list[Job] = []
        self.ids: list[str] = []
        """Job ids, in the order of `jobs`."""
        self._cleanup_id: str | None = None

    def upload(self, with_secrets: bool) -> None:
        """Check the far side, then put code (unless it is there) and the jobs' files there. Submits nothing.

        Raises:
            PipelineError: what cannot be sent, no Slurm commands, no uv, inputs that are not there, or what the far
                side said.
        """
        check_sendable(self.tasks)
        files = source_files(workspace())
        self._check_sent(files)
        places = places_of(self.profile, self.tasks, content_hash(workspace(), files))
        uv = self._check(places)
        if self.host.run(f"[ -d {places.code} ]").returncode:
            part = f"{places.code}.{uuid4().hex[:8]}"
            rename = f"mv -T {part} {places.code} 2>/dev/null || rm -rf {part}"  # another submission may be faster
            self.host.must(
                f"set -e; mkdir -p {part}; tar -xzf - --no-same-owner -C {part}; {rename}",
                packed_files(workspace(), files),
            )
        self.jobs = jobs_of(self.profile, self.tasks, places, self.detached, uv, with_secrets)
        texts: dict[str, str] = {}
        for job, task in zip(self.jobs, self.tasks, strict=True):
            texts |= files_of(job, task)
        self.host.must(f"tar -xzf - --no-same-owner -C {places.state}", packed_texts(texts))

    def submit(self, interrupts: Interrupts) -> None:
        """Upload, then submit every job; if one is refused, those before it are withdrawn.

        Raises:
            PipelineError: as for `upload`, or what sbatch said.
        """
        self.upload(with_secrets=True)
        try:
            with interrupts.held():
                for job, task in zip(self.jobs, self.tasks, strict=True):
                    self._hand_over_secrets(job, task)
                    self.ids.append(self._sbatch(job))
                self._submit_cleanup()
        except BaseException:
            self.give_up(interrupts)
            raise

    def give_up(self, interrupts: Interrupts) -> None:
        """Withdraw, if the far side can be reached; else say what may go on, and leave the first error to be seen."""
        try:
            with interrupts.held():
                self.withdraw()
        except PipelineError as error:
            log.warning(f"{error.message}\njobs that may go on (scancel): {' '.join(self.ids) or 'none that is known'}")

    def withdraw(self) -> None:
        """Cancel what has not ended and delete secrets that no job has read."""
        ids = [*self.ids, *([self._cleanup_id] if self._cleanup_id else [])]
        script = f"scancel --quiet {' '.join(ids)}; " if ids else ""
        files = self._secret_files()
        script += f"rm -f {shlex.join(files)}; " if files else ""
        self.host.run(script + "true")

    def _check_sent(self, files: Sequence[Path]) -> None:
        for task in self.tasks:
            path = Path(task.config).resolve()
            if is_file_name(task.config) and workspace() in path.parents and path.relative_to(workspace()) not in files:
                raise PipelineError(
                    f"-c {task.config} lies in the checkout, but does not travel with it: git ignores it",
                    fix="move it to another folder, or take it out of .gitignore",
                )

    def _check(self, places: Places) -> str:
        """Ask the far side, in one go, for all that a job will need. Returns the path of uv there."""
        needed = needed_inputs(self.tasks)
        script = f"mkdir -p {places.state} {places.work} && cd {places.work} || exit 1\n"
        script += "for c in sbatch squeue scancel; do command -v $c >/dev/null || echo lacks $c; done\n"
        script += _find_uv(places, self.profile.uv)
        for number, item in enumerate(needed):
            script += f"[ -e {shlex.quote(item.value)} ] || echo missing {number}\n"
        script += "true\n"
        said = [line.partition(" ")[::2] for line in self.host.must(script).splitlines()]
        lacking = [value for name, value in said if name == "lacks"]
        if lacking:
            raise PipelineError(
                f"{self.host.name} has no {', '.join(lacking)} on the PATH of a shell without login",
                fix="give the profile the login node of a Slurm cluster (tunnel, host), or set PATH in its ~/.bashrc",
            )
        missing = [needed[int(value)] for name, value in said if name == "missing"]
        if missing:
            listed = "; ".join(f"{item.key}: {item.value}" for item in missing)
            raise PipelineError(
                f"not on {self.host.name} (working directory {places.work}): {listed}",
                fix=self._missing_fix(missing[0]),
            )
        return next((value for name, value in said if name == "uv"), None) or self._install_uv(places)

    def _missing_fix(self, item: PlannedInput) -> str:
        if item.made_by in STAGES:
            earlier = f"`pipeline {self.tasks[0].family} {item.made_by}` with the same profile"
            return f"run {earlier} first, or set {item.key}=PATH to what is there"
        return f"copy it there, for example with rsync -a, or set {item.key}=PATH to what is there"

    def _install_uv(self, places: Places) -> str:
        named = self.profile.uv
        if not named:
            folder = f"{places.state}/uv"
            self.host.run(f"python3 -m pip install --quiet --target {folder} uv")
            found = self.host.run(_find_uv(places, f"{folder}/bin/uv")).stdout.decode().split()
            if found:
                return found[1]
        what = f"{named} is no uv" if named else "there is no uv, and pip could not install one:"
        raise PipelineError(
            f"{self.host.name}: {what} {_OLDEST_UV} or newer",
            fix="pip install --user uv there, or name the command with the profile's key `uv`",
        )

    def _hand_over_secrets(self, job: Job, task: Task) -> None:
        """Through standard input: command lines can be read by everybody on the machine."""
        if not job.secret_file:
            return
        text = secret_file(environment_for([task], self.profile).secret)
        self.host.must(f"umask 077; cat > {shlex.quote(job.secret_file)}", text.encode())

    def _sbatch(self, job: Job) -> str:
        after = f" --dependency=afterok:{self.ids[-1]}" if self.ids else ""
        return self._job_id(f"cd {job.folder} && sbatch --parsable{after} job.sbatch")

    def _submit_cleanup(self) -> None:
        """Whatever becomes of the jobs, their secrets do not outlive them."""
        files = self._secret_files()
        if files:
            after = f"--dependency=afterany:{':'.join(self.ids)}"
            script = cleanup_script(files, self.jobs[0].options)
            where = f"cd {self.jobs[0].folder} && sbatch --parsable {after}"
            try:
                self._cleanup_id = self._job_id(where, script.encode())
            except PipelineError as error:
                left = ", ".join(files)
                log.warning(f"warning: jobs that never start leave {left}: no job could be made to delete them")
                log.warning(f"  {error.message}")

    def _job_id(self, script: str, data: bytes | None = None) -> str:
        try:
            return self.host.must(script, data).strip().split(";")[0]
        except PipelineError as error:
            raise PipelineError(
                error.message,
                fix=error.fix or "`sinfo` shows the partitions; run.env.KEY=VALUE changes account, partition, time, …",
            ) from error

    def _secret_files(self) -> list[str]:
        return [job.secret_file for job in self.jobs if job.secret_file]


def check_sendable(tasks: Sequence[Task]) -> None:
    """Refuse what means nothing on another machine, or must not be copied there.

    Raises:
        PipelineError: a path begins with ~, or a configuration file holds a secret.
    """
    for task in tasks:
        refuse_homes(task)
        refuse_secrets(task)


def _find_uv(places: Places, named: str | None) -> str:
    """A script that prints `uv PATH` for the first uv that is new enough."""
    candidates = [named] if named else [*_UV_PLACES, f"{places.state}/uv/bin/uv"]
    names = " ".join(f"$HOME{name[1:]}" if name.startswith("~/") else shlex.quote(name) for name in candidates)
    return (
        f'for u in {names}; do p=$(command -v "$u") || continue; v=$("$p" --version 2>/dev/null | cut -d\' \' -f2)\n'
        f'[ "$(printf \'%s\\n%s\\n\' {_OLDEST_UV} "$v" | sort -V | head -n 1)" = {_OLDEST_UV} ] && '
        '{ echo "uv $p"; break; }; done\n'
    )

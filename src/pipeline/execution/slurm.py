"""Run tasks as Slurm jobs: submitted with sbatch here or on a login node, followed, stopped.

Slurm's own commands are driven directly; docs/decisions.md says why.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from textwrap import indent

from pipeline.execution.environment import environment_for
from pipeline.execution.interrupts import Interrupted, Interrupts
from pipeline.execution.profile import Profile
from pipeline.execution.remote_host import HostUnreachable, reach
from pipeline.execution.slurm_jobs import MULTI_NODE_STAGES, jobs_of, places_of
from pipeline.execution.slurm_script import Job, run_script, sbatch_script
from pipeline.execution.slurm_submit import Submission, check_sendable
from pipeline.execution.slurm_watch import Follower, looking_hints
from pipeline.execution.tasks import Task

log = logging.getLogger(__name__)


class SlurmExecutor:
    """The executor of a profile with `executor = "slurm"`."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def describe(self, tasks: Sequence[Task], detached: bool) -> str:
        check_sendable(tasks)
        places = places_of(self.profile, tasks, "HASH-OF-THE-CHECKOUT")
        jobs = jobs_of(self.profile, tasks, places, detached, self.profile.uv or "uv")
        where = f"on {self.profile.host}, over ssh" if self.profile.tunnel else "on this machine"
        lines = [f"slurm: sbatch {where}; {'detached' if detached else 'attached'}"]
        lines += [f"working directory there: {places.work}", f"code there: {places.code}"]
        lines += [self._described(job, task) for job, task in zip(jobs, tasks, strict=True)]
        if len(jobs) > 1:
            lines.append("each job waits for the one before it (--dependency=afterok) and is cancelled if that fails")
        return "\n".join(lines)

    def missing(self, tasks: Sequence[Task]) -> list[str]:
        """Nothing is known to lack: only the far side knows what it has, and is asked before anything is submitted."""
        return []

    def run(self, tasks: Sequence[Task]) -> int:
        with self._submission(tasks, detached=False) as (submission, interrupts):
            submission.submit(interrupts)
            try:
                code = _followed(submission)
            except Interrupted:
                log.info(f"\ncancelling job {', '.join(submission.ids)}")
                submission.give_up(interrupts)
                raise
            with interrupts.held(), suppress(HostUnreachable):
                submission.withdraw()  # not after an error of ours: a broken connection ends no job
            return code

    def submit(self, tasks: Sequence[Task]) -> str:
        with self._submission(tasks, detached=True) as (submission, interrupts):
            submission.submit(interrupts)
            pairs = zip(submission.jobs, submission.ids, strict=True)
            lines = [f"submitted {job.name} as job {number}" for job, number in pairs]
            return "\n".join([*lines, looking_hints(submission.host, submission.jobs, submission.ids)])

    def stage_files(self, tasks: Sequence[Task]) -> str:
        with self._submission(tasks, detached=True) as (submission, _):
            submission.upload(with_secrets=False)
            return "\n".join(self._next_steps(job, task) for job, task in zip(submission.jobs, tasks, strict=True))

    @contextmanager
    def _submission(self, tasks: Sequence[Task], detached: bool) -> Iterator[tuple[Submission, Interrupts]]:
        profile = self.profile
        login = (profile.tunnel, profile.host or "", profile.user or "", profile.identity or "", profile.port)
        try:
            with Interrupts() as interrupts, reach(*login) as host:
                yield Submission(host, profile, tasks, detached), interrupts
        except Interrupted as interrupted:
            raise SystemExit(interrupted.code) from None

    def _described(self, job: Job, task: Task) -> str:
        environment = environment_for([task], self.profile)
        secrets = [line for line in environment.lines() if line.endswith(("(secret, set)", "(unset)"))]
        lines = [f"\n{job.name}: {job.folder}/job.sbatch", indent(sbatch_script(job), "  ")]
        lines += [f"{job.name}: {job.folder}/run.sh", indent(run_script(job), "  ")]
        lines.append("secrets: " + (", ".join(secrets) or "none"))
        if job.nodes < self.profile.nodes:
            lines.append(f"one node: only {', '.join(MULTI_NODE_STAGES)} can be spread over {self.profile.nodes}")
        return "\n".join(lines)

    def _next_steps(self, job: Job, task: Task) -> str:
        """What a person types to go on by hand."""
        profile = self.profile
        options = ["-p", str(profile.port)] if profile.port else []
        options += ["-i", profile.identity] if profile.identity else []
        address = f"{profile.user}@{profile.host}" if profile.user else profile.host or ""
        login = [shlex.join(["ssh", *options, address])] if profile.tunnel else []
        keys = [f"export {name}=…" for name in environment_for([task], profile).secret]
        return "\n".join(
            [
                f"{job.name} lies in {job.folder}; nothing was submitted. Go on with:",
                *(f"  {line}" for line in [*login, f"cd {job.folder}", *keys]),
                "  ./run.sh            # here, or in an allocation: srun --pty bash",
                "  sbatch job.sbatch   # or as a job",
            ]
        )


def _followed(submission: Submission) -> int:
    """Follow the jobs in order; the exit code of the first that failed, else 0."""
    for job, job_id in zip(submission.jobs, submission.ids, strict=True):
        log.info(f"{job.name} is job {job_id}; logs in {job.folder}/logs")
        code = Follower(submission.host, job, job_id).follow()
        if code:
            return code
    return 0

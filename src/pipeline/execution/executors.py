"""What every way of running elsewhere can do, and which one a profile means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.execution.profile import Profile
from pipeline.execution.tasks import Task


class Executor(Protocol):
    """Runs tasks elsewhere, in order; a task starts only when the one before it succeeded."""

    def describe(self, tasks: Sequence[Task], detached: bool) -> str:
        """What would be started, in words and commands, without contacting anybody; secrets as set or unset."""
        ...

    def missing(self, tasks: Sequence[Task]) -> list[str]:
        """Inputs that are known to lack over there, as `key: path`, without contacting anybody."""
        ...

    def run(self, tasks: Sequence[Task]) -> int:
        """Run attached, with logs on this terminal. Returns the exit code of the stage that failed, else 0."""
        ...

    def submit(self, tasks: Sequence[Task]) -> str:
        """Start detached. Returns what the person is told: ids, how to see logs, how to stop."""
        ...

    def stage_files(self, tasks: Sequence[Task]) -> str:
        """Put code, configuration and an executable run.sh there, and start nothing. Returns what to do next.

        Of a cluster alone: the command line refuses `--stage` for any other.
        """
        ...


def executor_of(profile: Profile) -> Executor:
    """The executor of a profile that is not `local`."""
    if profile.executor == "docker":
        from pipeline.execution.docker import DockerExecutor

        return DockerExecutor(profile)
    from pipeline.execution.slurm import SlurmExecutor

    return SlurmExecutor(profile)

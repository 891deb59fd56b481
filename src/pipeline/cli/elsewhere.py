"""`--run`, `--batch`, `--stage` and `run.env.KEY=VALUE`: where a command's stages run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import split_override
from pipeline.config.resolve import Resolved
from pipeline.errors import PipelineError
from pipeline.execution.profile import Profile
from pipeline.execution.profiles import load_profile
from pipeline.execution.tasks import Task
from pipeline.schemas.fields import keys_of

_PREFIX = "run.env."


@dataclass(frozen=True)
class Place:
    """Where stages run. `profile` is None without --run and --batch."""

    profile: Profile | None = None
    detached: bool = False
    stage_files: bool = False

    @property
    def elsewhere(self) -> bool:
        return self.profile is not None and self.profile.executor != "local"


def place_of(
    run: str | None, batch: str | None, stage_files: bool, overrides: Sequence[str], stages: Sequence[str]
) -> tuple[Place, list[str]]:
    """The place that the options name, and the overrides that are the stages' own.

    A profile with `executor = "local"` puts its `env_vars` into the environment of this process.

    Raises:
        PipelineError: options that do not go together, `deploy` elsewhere, or a bad profile.
    """
    for option, given in (("--run", run), ("--batch", batch)):
        if given is not None and not given.strip():
            raise PipelineError(f"{option} names no profile", fix=f"{option} PROFILE; is the variable empty?")
    of_profile, own = _sorted_out(overrides)
    if run and batch:
        raise PipelineError("--run and --batch exclude each other", fix="--run waits for the end, --batch does not")
    name = run or batch
    if stage_files and not name:
        raise PipelineError(
            "--stage needs --run PROFILE or --batch PROFILE", fix="name the profile that says where the files go"
        )
    if of_profile and not name:
        raise PipelineError(
            f"{_PREFIX}{of_profile[0][0]} changes a profile, but none is named",
            fix="add --run PROFILE or --batch PROFILE",
        )
    if not name:
        return Place(), own
    if "deploy" in stages:
        raise PipelineError(
            f"deploy runs on this machine only, not as profile {name!r} says",
            fix="leave --run and --batch out for deploy, or end the run at --to export",
        )
    profile = load_profile(name, of_profile)
    if stage_files and profile.executor != "slurm":
        raise PipelineError(
            f'--stage puts files on a cluster; profile {name!r} has executor = "{profile.executor}", which runs here',
            fix="leave --stage out; --dry-run shows what would be started",
        )
    if profile.executor == "local":
        if batch:
            raise PipelineError(
                f'--batch: profile {name!r} has executor = "local", which runs here and waits', fix=f"--run {name}"
            )
        os.environ.update(profile.environment())
    return Place(profile, bool(batch), stage_files), own


def process_overrides(resolved: Mapping[str, Resolved[Any]], profile: Profile | None, prefix: bool) -> list[str]:
    """How many processes the profile gives to the stages that take several and were not told by the person."""
    count = profile.processes() if profile else None
    stages = [
        stage
        for stage, item in resolved.items()
        if count and "nproc_per_node" in keys_of(type(item.config)) and "nproc_per_node" not in item.explicit
    ]
    return [f"{f'{stage}.' if prefix else ''}nproc_per_node={count}" for stage in stages]


def start_elsewhere(tasks: Sequence[Task], place: Place, dry_run: bool) -> int:
    """Run, submit, stage or only show tasks. Returns the exit code for the shell."""
    from pipeline.execution.executors import executor_of

    executor = executor_of(place.profile)
    missing = executor.missing(tasks)
    if dry_run:
        _show(tasks, executor.describe(tasks, place.detached), missing)
        return 1 if missing else 0
    if missing:
        raise PipelineError(f"{missing[0]} does not exist", fix="`--dry-run` shows every input and every mount")
    if place.stage_files:
        print(executor.stage_files(tasks))
        return 0
    if place.detached:
        print(executor.submit(tasks))
        return 0
    return executor.run(tasks)


def _show(tasks: Sequence[Task], description: str, missing: Sequence[str]) -> None:
    from pipeline.cli.show import print_configuration

    for task in tasks:
        print_configuration(task.plan, there=True)
    print(description)
    for item in missing:
        print(f"error: {item} does not exist")


def _sorted_out(overrides: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    of_profile: list[tuple[str, str]] = []
    own: list[str] = []
    for text in overrides:
        name, value = split_override(text)
        if name.startswith(_PREFIX) and "=" in text:
            of_profile.append((name.removeprefix(_PREFIX), value))
        else:
            own.append(text)
    return of_profile, own

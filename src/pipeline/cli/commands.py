"""What the commands do, apart from how they are written on the command line."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

from pipeline.cli.elsewhere import Place, process_overrides, start_elsewhere
from pipeline.config import is_file_name, profile_path, profiles, resolve
from pipeline.config.resolve import Resolved
from pipeline.errors import PipelineError
from pipeline.execution.plan import Plan, make_plan
from pipeline.execution.tasks import make_task
from pipeline.family import STAGE_SUMMARY, STAGES, Family


def run_one(
    family: Family, stage: str, profile: str, overrides: list[str], place: Place, dry_run: bool, verbose: bool
) -> int:
    """Run one stage, here or elsewhere (or show what would run). Returns the stage's exit code."""
    resolved = _resolve_one(family, stage, profile, overrides)
    if processes := process_overrides({stage: resolved}, place.profile, prefix=False):
        overrides = overrides + processes
        resolved = _resolve_one(family, stage, profile, overrides)
    plan = make_plan(resolved, verbose)
    if place.elsewhere:
        options = ["--verbose"] if verbose else []
        return start_elsewhere([make_task(plan, profile, overrides, options=options)], place, dry_run)
    if dry_run:
        from pipeline.cli.show import print_plan

        print_plan(plan)
        return 1 if plan.missing else 0
    return _start(plan)


def run_many(
    family: Family,
    profile: str,
    overrides: list[str],
    stages: list[str],
    place: Place,
    force: bool,
    dry_run: bool,
    verbose: bool,
) -> int:
    """Run what is stale among `stages`, in order; stop at the first failure with its exit code."""
    resolved = resolve_all(family, profile, overrides, stages)
    if processes := process_overrides(resolved, place.profile, prefix=True):
        overrides = overrides + processes
        resolved = resolve_all(family, profile, overrides, stages)
    _check_whole(resolved)
    if place.elsewhere:
        options = ["--force"] * force + ["--verbose"] * verbose
        plans = [make_plan(item, verbose) for item in resolved.values()]
        tasks = [make_task(plan, profile, overrides, chained=True, options=options) for plan in plans]
        if dry_run:
            _say(" -> ".join(resolved))
        return start_elsewhere(tasks, place, dry_run)
    if dry_run:
        return _dry_run_many(resolved, force, verbose)
    from pipeline.run.freshness import State, status_of

    for number, stage in enumerate(stages, 1):
        title = f"[{number}/{len(stages)}] {family.name} {stage}"
        status = status_of(resolved[stage])
        if status.state is State.DONE and not force:
            _say(f"{title}: fresh, skipped")
            continue
        why = "forced" if status.state is State.DONE else f"{status.state}{_because(status.reasons)}"
        _say(f"{title}: {why}")
        plan = make_plan(resolved[stage], verbose)
        code = _start(plan)
        if code:
            _say(f"{title}: failed with exit code {code}; log: {plan.folder / 'logs' / 'latest.log'}")
            return code
    return 0


def stage_range(first: str, last: str) -> list[str]:
    """The stages from `first` to `last`, in order."""
    for option, name in (("--from", first), ("--to", last)):
        if name not in STAGES:
            raise PipelineError(f"{option} {name}: no such stage", fix=f"stages, in order: {', '.join(STAGES)}")
    begin, end = STAGES.index(first), STAGES.index(last)
    if begin > end:
        raise PipelineError(f"--from {first} comes after --to {last}", fix=f"stages, in order: {', '.join(STAGES)}")
    return list(STAGES[begin : end + 1])


def _check_whole(resolved: dict[str, Resolved[Any]]) -> None:
    """A part of a stage's work (a shard, a preview) is nothing that the next stage could read."""
    for stage, item in resolved.items():
        if len(resolved) > 1 and item.config.folder() != item.config.output_dir:
            raise PipelineError(
                f"{stage} would write only {item.config.folder()}, which no other stage reads",
                fix=f"give `pipeline {item.family} {stage}` alone for shards and previews",
            )


def resolve_all(family: Family, profile: str, overrides: list[str], stages: list[str]) -> dict[str, Resolved[Any]]:
    """Configurations of several stages; the errors of all of them are reported together."""
    from pipeline.cli.overrides import distribute

    _check_profile(family, profile, stages)
    per_stage = distribute(family, profile, overrides, stages)
    resolved, failures = {}, []
    for stage in stages:
        try:
            resolved[stage] = _resolve_one(family, stage, profile, per_stage[stage])
        except PipelineError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise PipelineError("\n".join(failure.message for failure in failures), fix=failures[0].fix)
    return resolved


def _check_profile(family: Family, profile: str, stages: list[str]) -> None:
    """One error for the whole run, not one for every stage, when its configuration is not there."""
    if is_file_name(profile):
        profile_path(family.name, stages[0], profile)
        return
    known = {stage: profiles(family.name, stage) for stage in stages}
    lacking = [stage for stage in stages if profile not in known[stage]]
    if lacking:
        shared = [name for name in known[stages[0]] if all(name in names for names in known.values())]
        near = difflib.get_close_matches(profile, shared, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise PipelineError(
            f"{family.name} has no configuration {profile!r} for {', '.join(lacking)}",
            fix=f"{hint}all of these stages have: {', '.join(shared)}; or give the path of a YAML file",
        )


def show_status(family: Family, profile: str, overrides: list[str]) -> None:
    """Print the state of every stage of a run."""
    from pipeline.cli.show import print_status
    from pipeline.run.freshness import status_of

    resolved = resolve_all(family, profile, overrides, list(STAGES))
    print_status(family, resolved["sdg"].config.run_dir, [status_of(resolved[stage]) for stage in STAGES])


def show_info(family: Family) -> None:
    """Print what the family's six stages do and how they are configured."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{family.title}: {family.architecture}", title_justify="left")
    for column in ("stage", "what it does", "folder", "configurations"):
        table.add_column(column)
    for stage in STAGES:
        table.add_row(stage, STAGE_SUMMARY[stage], family.folders[stage], ", ".join(profiles(family.name, stage)))
    console = Console()
    console.print(table)
    default = resolve(family.name, "finetune").config
    console.print(f"base model (-c default): {default.base_model}", highlight=False)
    console.print(f"run directory (-c default): {default.run_dir}", highlight=False)
    console.print(f"next: pipeline {family.name} run --help", style="bold", highlight=False)


def service_folder(family: Family, profile: str, overrides: list[str]) -> Path:
    """The folder of a run's service record."""
    return Path(_resolve_one(family, "deploy", profile, overrides).config.output_dir)


def _resolve_one(family: Family, stage: str, profile: str, overrides: list[str]) -> Resolved[Any]:
    for text in overrides:
        if "=" not in text:
            raise PipelineError(f"{text!r} is not an override", fix="write it as key=value; options start with --")
    return resolve(family.name, stage, profile, overrides)


def _start(plan: Plan) -> int:
    from pipeline.execution.local import run_local

    if plan.missing:
        from pipeline.run.stage import missing_fix

        item = plan.missing[0]
        raise PipelineError(
            f"{item.key}: {item.value} does not exist", fix=missing_fix(plan.resolved.family, item.key, item.made_by)
        )
    return run_local(plan)


def _dry_run_many(resolved: dict[str, Resolved[Any]], force: bool, verbose: bool) -> int:
    from pipeline.cli.show import print_plan
    from pipeline.run.freshness import State, status_of

    _say(" -> ".join(resolved))
    missing = False
    upstream: str | None = None
    for stage, item in resolved.items():
        status = status_of(item)
        fresh = status.state is State.DONE and not force and upstream is None
        if fresh:
            _say(f"\n{stage}: fresh, would be skipped")
            continue
        reasons = status.reasons or ([f"{upstream} would run again"] if upstream and status.manifest else [])
        _say(f"\n{stage}: would run ({status.state}{_because(reasons)})")
        plan = make_plan(item, verbose)
        print_plan(plan)
        missing |= bool(plan.missing)
        upstream = stage
    return 1 if missing else 0


def _because(reasons: list[str]) -> str:
    return f" because {'; '.join(reasons)}" if reasons else ""


def _say(text: str) -> None:
    print(text, flush=True)
    sys.stdout.flush()

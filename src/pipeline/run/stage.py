"""The runner of all six stages: read the configuration, lock, log, run, write the manifest last.

A stage's own code is one function `main(config, run) -> StageResult`; its console entry is `run_stage("sdg", main)`.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config.resolve import Resolved
from pipeline.errors import PipelineError
from pipeline.family import FAMILIES, STAGES, Family
from pipeline.run.freshness import input_keys, input_paths, stage_folder, take_inputs
from pipeline.run.handoff import read_handoff
from pipeline.run.lock import stage_lock
from pipeline.run.log import LOGGER, new_stamp, start_log
from pipeline.run.manifest import Manifest, mark_started
from pipeline.run.processes import wait_for_the_first_process
from pipeline.run.progress import duration
from pipeline.run.snapshot import Snapshot, record
from pipeline.schemas.fields import keys_of


@dataclass
class StageResult:
    """What a stage made.

    Attributes:
        outputs: files, or folders whose files all count, inside the stage's folder.
        counts: what went in and what came out, shown in the summary.
        metrics: numbers that later questions are asked about.
        headline: rows (name, value) of the summary table.
        failure: set when the work was saved but the stage must still exit with an error (a failed gate).
        effective: configuration values that describe the outputs better than this run's own, for the manifest: results
            merged with earlier ones cover more than this run was asked for.
    """

    outputs: list[Path]
    counts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    headline: list[tuple[str, str]] = field(default_factory=list)
    next_command: str | None = None
    failure: str | None = None
    effective: dict[str, Any] = field(default_factory=dict)


@dataclass
class StageRun:
    """What a stage's code is given beside its configuration."""

    family: Family
    stage: str
    profile: str
    folder: Path
    explicit: frozenset[str]
    """Keys a person set (command line or a YAML of their own)."""
    command_line: frozenset[str]
    log: logging.Logger

    run_dir: str

    @property
    def config_hint(self) -> str:
        """How the user would name this run again: ` -c demo`, with ` run_dir=…` if they chose one."""
        chosen = f" run_dir={shlex.quote(self.run_dir)}" if "run_dir" in self.command_line else ""
        return f" -c {self.profile}{chosen}"


Main = Callable[[Any, StageRun], StageResult]
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def run_stage(stage: str, main: Main) -> None:
    """Console entry of a stage: exits with 0, or with 1 after one clear message."""
    parser = argparse.ArgumentParser(prog=f"pipeline-{stage}", description=f"Run the {stage} stage.")
    parser.add_argument("--config", required=True, type=Path, help="resolved configuration, written by `pipeline`")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        resolved = read_handoff(arguments.config)
        if resolved.stage != stage:
            raise PipelineError(f"{arguments.config} configures {resolved.stage}, this is {stage}")
        failure = execute(resolved, main, arguments.verbose)
    except PipelineError as error:
        _report(error)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _report(PipelineError(f"nothing more can be written: {error}", fix="make room, then give the command again"))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(1 if failure else 0)


def execute(resolved: Resolved[Any], main: Main, verbose: bool = False) -> str | None:
    """Run one stage in this process. Returns the failure text of a gate that did not hold, else None.

    Of the processes that torchrun started, the first one locks, logs and writes the manifest; the others only work.
    """
    folder = stage_folder(resolved)
    run = _run_of(resolved, folder)
    if _follows():
        run.log.setLevel(logging.ERROR)
        main(resolved.config, run)
        return None
    with stage_lock(folder):
        start_log(folder, new_stamp(), verbose)
        check_inputs(resolved)
        mark_started(folder, resolved.stage)
        begun, clock = datetime.now(UTC), time.monotonic()
        inputs = take_inputs(resolved, _known_inputs(folder))
        result = main(resolved.config, run)
        seconds = time.monotonic() - clock
        manifest = Manifest(
            stage=resolved.stage,
            family=resolved.family,
            stage_version=resolved.config.version,
            profile=resolved.profile,
            config=resolved.values() | result.effective,
            inputs=inputs,
            outputs=_outputs(folder, result.outputs),
            counts=result.counts,
            metrics=result.metrics,
            failure=result.failure,
            started=begun.isoformat(timespec="seconds"),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 2),
        )
        manifest.save(folder)
        print_summary(run, result, seconds)
        if result.failure:
            run.log.error(result.failure)
        return result.failure


def _follows() -> bool:
    """True in every process of a torchrun but the first; a stray RANK without others means nothing."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0


def _run_of(resolved: Resolved[Any], folder: Path) -> StageRun:
    return StageRun(
        FAMILIES[resolved.family],
        resolved.stage,
        resolved.profile,
        folder,
        resolved.explicit,
        resolved.command_line,
        logging.getLogger(LOGGER),
        resolved.config.run_dir,
    )


def check_inputs(resolved: Resolved[Any]) -> None:
    """Fail before any work if an input is not there, naming the key, the path and the stage that makes it."""
    specs = keys_of(type(resolved.config))
    for name, made_by in input_keys(resolved).items():
        if specs[name].spec.optional_input:
            continue
        for path in input_paths(resolved, name):
            if not path.exists():
                raise PipelineError(f"{name}: {path} does not exist", fix=missing_fix(resolved.family, name, made_by))


def missing_fix(family: str, name: str, made_by: str) -> str:
    if made_by in STAGES:
        return f"run `pipeline {family} {made_by}` first, or set {name}=PATH"
    return f"set {name}=PATH"


def print_summary(run: StageRun, result: StageResult, seconds: float) -> None:
    """What was made, where, and the next command."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{run.family.name} {run.stage}: done in {duration(seconds)}",
        show_header=False,
        min_width=60,
        title_justify="left",
    )
    for name, value in result.headline:
        table.add_row(name, value)
    table.add_row("written to", str(run.folder))
    if result.next_command:
        table.add_row("next", result.next_command, style="bold")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    sys.stdout.flush()


def _known_inputs(folder: Path) -> dict[str, Snapshot | None]:
    try:
        before = Manifest.load(folder)
    except PipelineError:
        return {}
    return before.inputs if before else {}


def _outputs(folder: Path, paths: list[Path]) -> Snapshot:
    files: list[Path] = []
    for path in paths:
        files += sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    return {os.path.relpath(path, folder): record(path) for path in files}


def _report(error: PipelineError) -> None:
    wait_for_the_first_process()
    logger = logging.getLogger(LOGGER)
    if logger.handlers:
        logger.error("error: %s", error)
    else:
        print(f"error: {error}", file=sys.stderr)

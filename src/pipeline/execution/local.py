"""Run a stage or a tool on this machine, as a process of its own in a stage's environment."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.execution.plan import Plan, environment_of, in_environment_of, module_command
from pipeline.run.handoff import write_handoff

log = logging.getLogger(__name__)


def run_local(plan: Plan) -> int:
    """Start the stage, pass signals on, and return its exit code."""
    write_handoff(plan.resolved, plan.handoff)
    return run_in(plan.resolved.stage, plan.argv, plan.environment)


def run_in(stage: str, argv: list[str], environment: dict[str, str]) -> int:
    """Start a process in a stage's environment, pass signals on, and return its exit code (128 + a signal's number).

    Args:
        argv: a whole command line that begins with `in_environment_of(stage)`.
        environment: what is added to ours, among it `environment_of(stage)`.
    """
    folder = Path(environment["UV_PROJECT_ENVIRONMENT"])
    if not (folder / "pyvenv.cfg").exists():
        log.info(f"Setting up the environment of {stage} in {folder} (once)")
    whole = {**os.environ, **environment}
    whole.pop("VIRTUAL_ENV", None)
    process = subprocess.Popen(argv, env=whole)
    with _signals_passed_to(process):
        code = process.wait()
    return code if code >= 0 else 128 - code


def run_tool(stage: str, module: str, arguments: list[str], processes: int | str = 1) -> int:
    """Run a module of a stage that is no stage itself, in the stage's environment."""
    argv = [*in_environment_of(stage), *module_command(module, processes), *arguments]
    return run_in(stage, argv, environment_of(stage, processes))


@contextmanager
def _signals_passed_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C reaches the stage through the terminal; a SIGTERM sent to us alone has to be passed on.

    Either way we wait for the stage to end, so that it can put its work down cleanly.
    """

    def ignore(*_: object) -> None:
        pass

    def pass_on(number: int, _: object) -> None:
        process.send_signal(number)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, ignore),
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Run a planned stage on this machine, as a process of its own in its own environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.execution.plan import Plan
from pipeline.run.handoff import write_handoff


def run_local(plan: Plan) -> int:
    """Start the stage, pass signals on, and return its exit code."""
    environment_dir = Path(plan.environment["UV_PROJECT_ENVIRONMENT"])
    if not (environment_dir / "pyvenv.cfg").exists():
        print(
            f"Setting up the environment of {plan.resolved.stage} in {environment_dir} (once)",
            file=sys.stderr,
        )
    write_handoff(plan.resolved, plan.handoff)
    environment = {**os.environ, **plan.environment}
    environment.pop("VIRTUAL_ENV", None)
    process = subprocess.Popen(plan.argv, env=environment)
    with _signals_passed_to(process):
        code = process.wait()
    return code if code >= 0 else 128 - code


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

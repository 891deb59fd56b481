"""`python -m pipeline_prep.tools.main COMMAND OPTIONS`: what the command line starts in prep's environment.

The command line has parsed and described the options; they come as one JSON object of keyword arguments. Reports for
machines go to stdout, everything for people to stderr.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from pipeline.errors import PipelineError
from pipeline.run.processes import wait_for_the_first_process

COMMANDS = ("audit", "unroll", "materialize", "convert", "mine")
"""Each is a module beside this one with a function `command(**options) -> exit code`."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; what a person can mend is one message and exit code 1."""
    name, options = arguments
    try:
        return _command(name)(**json.loads(options))
    except PipelineError as error:
        wait_for_the_first_process()
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or name}: {error.strerror or error}", file=sys.stderr)
    return 1


def _command(name: str) -> Callable[..., int]:
    if name not in COMMANDS:
        raise PipelineError(f"there is no tool {name!r}", fix=f"one of: {', '.join(COMMANDS)}")
    return import_module(f"pipeline_prep.tools.{name}").command


def cli() -> None:
    """Run what the command line asks for; a signal ends it as an exception, so that no temporary file stays behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    logging.getLogger("pipeline").setLevel(logging.INFO)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    cli()

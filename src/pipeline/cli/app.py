"""`pipeline embed|rerank …`: both groups come from one function and differ by their `Family` alone."""

from __future__ import annotations

import logging
import sys

import typer

from pipeline.cli.argv import hoist
from pipeline.cli.data import data_app
from pipeline.cli.group import stage_group
from pipeline.errors import PipelineError
from pipeline.family import EMBED, RERANK

app = typer.Typer(
    name="pipeline",
    help="Turn a folder of documents into a domain-adapted embedding model and reranker, "
    "prove whether they beat the base model, and serve them.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(stage_group(EMBED), name="embed")
app.add_typer(stage_group(RERANK), name="rerank")
app.add_typer(data_app, name="data")


def main() -> None:
    """Console entry: one clear message and exit code 1 for everything a person can mend."""
    _show_log_of("pipeline.execution")
    try:
        app(args=hoist(sys.argv[1:]), prog_name="pipeline")
    except PipelineError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _show_log_of(package: str) -> None:
    """What it logs goes to the error stream as plain lines: a terminal that is gone stops nothing there."""
    logger = logging.getLogger(package)
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False


if __name__ == "__main__":
    main()

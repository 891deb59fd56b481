"""`pipeline data …`: commands on files that belong to no stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.automodel import Conversion

data_app = typer.Typer(help="Commands on data and configuration files.", no_args_is_help=True)


@data_app.callback()
def _group() -> None:
    """Commands on data and configuration files."""


@data_app.command("convert-config", help="Turn a retrieval configuration of NVIDIA AutoModel into one of ours.")
def convert_config_command(
    source: Annotated[Path, typer.Argument(metavar="AUTOMODEL.yaml", help="Bi-encoder or cross-encoder recipe.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here; without it, to the terminal.")
    ] = None,
) -> None:
    from pipeline.config.automodel import convert_file
    from pipeline.config.automodel_yaml import to_yaml
    from pipeline.run.files import atomic_open

    if output is not None:
        _check_output(output)
    conversion = convert_file(source)
    _report(conversion)
    text = to_yaml(conversion)
    if output is None:
        typer.echo(text, nl=False)
        return
    with atomic_open(output) as stream:
        stream.write(text)
    name = output if "/" in str(output) else f"./{output}"
    typer.echo(f"written: {output}\nnext: pipeline {conversion.family} finetune -c {name} --dry-run", err=True)


def _check_output(output: Path) -> None:
    if output.suffix not in (".yaml", ".yml"):
        raise PipelineError(f"--output {output}: must end with .yaml", fix=f"--output {output}.yaml")
    if output.exists():
        raise PipelineError(f"--output {output}: is there already", fix="give another name, or delete it first")


def _report(conversion: Conversion) -> None:
    """Every key of the file on one line each, in three groups, to the error stream (the YAML may go to stdout)."""
    from pipeline.config.automodel_yaml import value_text

    groups = {
        "converted": [(item.origin, f"{item.key}: {value_text(item.value)}") for item in conversion.converted.values()],
        "needs no key": [(f"{item.key}: {value_text(item.value)}", item.reason) for item in conversion.needless],
        "not converted": [(f"{item.key}: {value_text(item.value)}", item.reason) for item in conversion.lost],
    }
    typer.echo(f"{conversion.source} -> {conversion.family} finetune", err=True)
    for title, rows in groups.items():
        typer.echo(f"{title} ({len(rows)}):", err=True)
        width = min(70, max((len(left) for left, _ in rows), default=0))
        for left, right in rows:
            typer.echo(f"  {left:<{width}}  -> {right}", err=True)

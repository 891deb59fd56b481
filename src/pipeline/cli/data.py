"""`pipeline data …`: commands on files that belong to no stage."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.help import MineCommand
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.automodel import Conversion

data_app = typer.Typer(help="Commands on data and configuration files.", no_args_is_help=True)


@data_app.callback()
def _group() -> None:
    """Commands on data and configuration files."""


class Format(StrEnum):
    """What `convert` writes."""

    INLINE = "inline"
    COLUMNS = "columns"
    CORPUS_IDS = "corpus-ids"
    BEIR = "beir"
    COHERE = "cohere"


_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output's place.")]


@data_app.command("audit", help="Check a training file; the report goes to stdout as JSON. Exit 1 on findings.")
def audit_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Training file whose rows name passages by id.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="The cleaned copy.")] = None,
    drop_invalid_negatives: Annotated[
        bool, typer.Option("--drop-invalid-negatives", help="Write --output without the negatives that have findings.")
    ] = False,
    max_findings: Annotated[int, typer.Option(min=0, help="Most findings in the report; all are counted.")] = 20,
    min_negatives: Annotated[int, typer.Option(min=0, help="Fewer good negatives in a row are a finding.")] = 0,
    allow_findings: Annotated[bool, typer.Option("--allow-findings", help="Exit 0 whatever is found.")] = False,
    near_duplicates: Annotated[
        bool, typer.Option(help="Look for negatives that say nearly the same as a positive.")
    ] = True,
    qrels: Annotated[
        Path | None, typer.Option(metavar="BEIR", help="Compare with a test set: a BEIR folder or a file of qrels.")
    ] = None,
    overwrite: _Overwrite = False,
) -> None:
    _run(
        "audit",
        file=file,
        output=output,
        drop_invalid_negatives=drop_invalid_negatives,
        max_findings=max_findings,
        min_negatives=min_negatives,
        allow_findings=allow_findings,
        near_duplicates=near_duplicates,
        qrels=qrels,
        overwrite=overwrite,
    )


@data_app.command("unroll", help="Turn rows with several positives into one row for each.")
def unroll_command(
    file: Annotated[Path, typer.Argument(metavar="INPUT", help="Training file whose rows name passages by id.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Without it: the input's name and --suffix.")
    ] = None,
    suffix: Annotated[str, typer.Option(help="Put before the ending of the input's name.")] = "_unrolled",
    overwrite: _Overwrite = False,
) -> None:
    _run("unroll", input=file, output=output, suffix=suffix, overwrite=overwrite)


@data_app.command("materialize", help="Make a training file with its corpus folder of a hub data set or BEIR folder.")
def materialize_command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="hf://org/repo/subset[@revision], or a BEIR folder.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for train.json and <subset>_corpus.")],
    split: Annotated[str, typer.Option(help="Judgements of a BEIR folder: qrels/SPLIT.tsv.")] = "train",
    negatives: Annotated[bool, typer.Option(help="Keep the source's negatives.")] = True,
    overwrite: _Overwrite = False,
) -> None:
    _run("materialize", source=source, output=output, split=split, negatives=negatives, overwrite=overwrite)


@data_app.command("convert", help="Turn training rows of any accepted format into another one.")
def convert_command(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="File, folder or hf://…, told by its content.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="File, or folder for beir.")],
    to: Annotated[Format | None, typer.Option("--to", help="Without it, told by OUTPUT's ending.")] = None,
    corpus_id: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the corpus (corpus-ids). Default: OUTPUT's name.")
    ] = None,
    split: Annotated[str, typer.Option(help="Judgements of a BEIR folder, read or written.")] = "train",
    overwrite: _Overwrite = False,
) -> None:
    _run("convert", input=source, output=output, to=to, corpus_id=corpus_id, split=split, overwrite=overwrite)


@data_app.command("mine", cls=MineCommand, help="Mine hard negatives for a training file with any embedding model.")
def mine_command(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Keys of the miner.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="YAML with the keys (or under `mining`).")
    ] = None,
) -> None:
    from dataclasses import asdict

    from pipeline.config.resolve import resolve_mine

    for text in overrides or []:
        if "=" not in text:
            raise PipelineError(f"{text!r} is not an override", fix="write it as key=value")
    settled = resolve_mine(config, overrides or [])
    values = asdict(settled["config"])
    _run("mine", values["nproc_per_node"], values=values, command_line=sorted(settled["explicit"]))


def _run(command: str, processes: int | str = 1, /, **options: Any) -> None:
    """Run a tool of prep in prep's environment; its options travel as JSON."""
    from pipeline.execution.local import run_tool

    values = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    raise typer.Exit(run_tool("prep", "pipeline_prep.tools.main", [command, json.dumps(values)], processes))


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

"""One command group for every family: six stages, then run, status, info and the verbs of a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.help import StageCommand
from pipeline.family import HELP_PANELS, STAGE_SUMMARY, STAGES, Family

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override configuration keys.", show_default=False)
]
Config = Annotated[str, typer.Option("--config", "-c", metavar="NAME|PATH", help="Named configuration or YAML file.")]
Run = Annotated[
    str | None, typer.Option("--run", "-r", metavar="PROFILE", help="Run as this env.toml profile says, attached.")
]
Batch = Annotated[
    str | None, typer.Option("--batch", "-b", metavar="PROFILE", help="Submit as this env.toml profile says, detached.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-d", help="Check everything, show the command, start nothing.")]
Staged = Annotated[bool, typer.Option("--stage", help="With --run or --batch: only put the files there.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]


def stage_group(family: Family) -> typer.Typer:
    """The command group of one family."""
    group = typer.Typer(help=f"{family.title}s: {family.architecture}.", no_args_is_help=True)
    for stage in STAGES:
        group.command(
            stage,
            cls=StageCommand,
            help=STAGE_SUMMARY[stage],
            rich_help_panel=HELP_PANELS[stage],
            context_settings={"obj": (family, stage)},
        )(_stage_command(family, stage))
    _add_pipeline_commands(group, family)
    _add_service_commands(group, family)
    return group


def _stage_command(family: Family, stage: str):
    def command(
        overrides: Overrides = None,
        config: Config = "default",
        run: Run = None,
        batch: Batch = None,
        dry_run: DryRun = False,
        stage_files: Staged = False,
        verbose: Verbose = False,
    ) -> None:
        from pipeline.cli import commands
        from pipeline.cli.elsewhere import place_of

        place, own = place_of(run, batch, stage_files, overrides or [], [stage])
        raise typer.Exit(commands.run_one(family, stage, config, own, place, dry_run, verbose))

    return command


def _add_pipeline_commands(group: typer.Typer, family: Family) -> None:
    @group.command("run", help="Run the stages that are not fresh, in order.", rich_help_panel="Pipeline")
    def run_command(
        overrides: Overrides = None,
        config: Config = "default",
        first: Annotated[str, typer.Option("--from", metavar="STAGE", help="First stage.")] = "sdg",
        last: Annotated[str, typer.Option("--to", metavar="STAGE", help="Last stage (deploy: name it).")] = "export",
        force: Annotated[bool, typer.Option("--force", help="Run fresh stages too.")] = False,
        run: Run = None,
        batch: Batch = None,
        dry_run: DryRun = False,
        stage_files: Staged = False,
        verbose: Verbose = False,
    ) -> None:
        from pipeline.cli import commands
        from pipeline.cli.elsewhere import place_of

        stages = commands.stage_range(first, last)
        place, own = place_of(run, batch, stage_files, overrides or [], stages)
        raise typer.Exit(commands.run_many(family, config, own, stages, place, force, dry_run, verbose))

    @group.command(
        "status", help="Say for each stage: done, stale and why, partial or missing.", rich_help_panel="Pipeline"
    )
    def status_command(overrides: Overrides = None, config: Config = "default") -> None:
        from pipeline.cli import commands

        commands.show_status(family, config, overrides or [])

    @group.command("info", help="Show the stages, their configurations and the base model.", rich_help_panel="Pipeline")
    def info_command() -> None:
        from pipeline.cli import commands

        commands.show_info(family)


def _add_service_commands(group: typer.Typer, family: Family) -> None:
    def folder(config: str, overrides: list[str] | None) -> Path:
        from pipeline.cli import commands

        return commands.service_folder(family, config, overrides or [])

    @group.command(
        "deploy-stop", help="Stop the service that `deploy detach=true` started.", rich_help_panel="Deployment"
    )
    def stop_command(overrides: Overrides = None, config: Config = "default") -> None:
        from pipeline.run import service

        typer.echo(service.stop(folder(config, overrides)))

    @group.command("deploy-status", help="Say whether the service runs, and where.", rich_help_panel="Deployment")
    def status_command(overrides: Overrides = None, config: Config = "default") -> None:
        from pipeline.run import service

        running, text = service.describe(folder(config, overrides))
        typer.echo(text)
        raise typer.Exit(0 if running else 1)

    @group.command("deploy-logs", help="Show the log of the service.", rich_help_panel="Deployment")
    def logs_command(
        overrides: Overrides = None,
        config: Config = "default",
        lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.", min=1)] = 50,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing new lines.")] = False,
    ) -> None:
        from pipeline.run import service

        for line in service.tail(folder(config, overrides), lines, follow):
            typer.echo(line)

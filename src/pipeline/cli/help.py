"""`--help` of a stage: its profiles, and every key with type, default, allowed range and meaning."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from pipeline.family import Family


class StageCommand(TyperCommand):
    """A stage's command; its help is generated from the stage's dataclass."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        family, stage = self.context_settings["obj"]
        print_keys(family, stage)


class MineCommand(TyperCommand):
    """`data mine`; its help is generated from the miner's dataclass."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from pipeline.schemas.mine import MineConfig

        super().format_help(ctx, formatter)
        _print_table(MineConfig)


def print_keys(family: Family, stage: str) -> None:
    from pipeline.config import profiles
    from pipeline.schemas import schema_of

    names = ", ".join(profiles(family.name, stage))
    _console().print(f" [bold]Configurations (-c)[/bold]: {names}, or the path of a YAML file\n")
    _print_table(schema_of(family.name, stage))
    _console().print(
        f" Example: pipeline {family.name} {stage} -c default seed=7\n"
        " Values may refer to other keys and to the environment: ${run_dir}/x, ${oc.env:NAME,fallback}\n"
        " With --run or --batch, run.env.KEY=VALUE changes a key of the profile: run.env.gpus_per_node=4\n",
        markup=False,
        highlight=False,
    )


def _console() -> Any:
    from rich.console import Console

    console = Console()
    # A pipe has no width; 80 columns would fold every row.
    return console if console.is_terminal else Console(width=140)


def _print_table(schema: type) -> None:
    """Every key with type, default, allowed values and meaning."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from pipeline.schemas.fields import keys_of

    console = _console()
    wide = console.width >= 110
    table = Table(title="Keys (KEY=VALUE)", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("key", no_wrap=True, style="cyan")
    for column in ("type", "default", "allowed") if wide else ():
        table.add_column(column, overflow="fold", max_width=34)
    table.add_column("meaning", ratio=1)
    for item in keys_of(schema).values():
        also = f" Also: {', '.join(item.spec.aliases)}." if item.spec.aliases else ""
        facts = tuple(escape(text) for text in (item.type_name, default_text(item.default), item.allowed_text))
        meaning = escape(item.spec.meaning) + also
        if wide:
            table.add_row(item.name, *facts, meaning)
        else:
            allowed = f", {item.allowed_text}" if item.allowed_text else ""
            table.add_row(item.name, f"{meaning}\n[dim]{facts[0]}, default {facts[1]}{allowed}[/dim]")
    console.print(table)


def default_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value) if value != value.strip() or not value else value
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)

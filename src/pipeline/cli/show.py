"""Tables of the command line: a plan (dry run) and the state of a run."""

from __future__ import annotations

import os
from typing import Any

from pipeline.cli.help import default_text
from pipeline.execution.plan import InputState, Plan
from pipeline.family import Family
from pipeline.run.freshness import State, Status
from pipeline.run.progress import duration
from pipeline.schemas.fields import keys_of

_STYLE = {
    State.DONE: "green",
    State.STALE: "yellow",
    State.PARTIAL: "yellow",
    State.MISSING: "dim",
    State.RUNNING: "cyan",
}
_KEY_VARIABLES = ("NVIDIA_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "NGC_API_KEY")


def print_plan(plan: Plan) -> None:
    """Configuration, inputs, environment and the exact command of one stage on this machine."""
    print_configuration(plan)
    print(
        "secrets: "
        + ", ".join(
            f"{name} {'set' if name in plan.environment or os.environ.get(name) else 'unset'}"
            for name in _KEY_VARIABLES
        )
    )
    print(f"command:\n  {plan.command_line()}")
    for item in plan.missing:
        print(f"error: {item.key}: {item.value} does not exist")


def print_configuration(plan: Plan, there: bool = False) -> None:
    """Every key with its value, the inputs and the folder of one stage.

    With `there` the stage runs elsewhere: what exists on this machine says nothing of its inputs.
    """
    resolved = plan.resolved
    print(f"{resolved.family} {resolved.stage}, configuration {resolved.profile}")
    print("configuration:")
    width = max(len(name) for name in keys_of(type(resolved.config)))
    for name, value in resolved.values().items():
        origin = resolved.origins.get(name, "default")
        print(f"  {name:<{width}}  {default_text(value)}" + (f"   [{origin}]" if origin == "command line" else ""))
    print("inputs:")
    for item in plan.inputs:
        mark = "!" if item.state is InputState.MISSING and not there else " "
        print(f" {mark} {item.key}: {item.value}" + ("" if there else f" ({item.text})"))
    print(f"writes to: {plan.folder}")


def print_status(family: Family, run_dir: str, statuses: list[Status]) -> None:
    """One row per stage: its state, the reasons, when it finished and how long it took."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{family.name} run in {run_dir}", title_justify="left")
    for column in ("stage", "state", "finished (UTC)", "took", "why / what"):
        table.add_column(column)
    for status in statuses:
        manifest = status.manifest
        table.add_row(
            status.stage,
            f"[{_STYLE[status.state]}]{status.state}[/]",
            manifest.finished[:16].replace("T", " ") if manifest else "",
            duration(manifest.seconds) if manifest else "",
            "; ".join(status.reasons) or _counts(manifest.counts if manifest else {}),
        )
    Console().print(table)


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_count(value)}" for name, value in list(counts.items())[:3])


def _count(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name.replace('_', ' ')} {inner}" for name, inner in value.items()) + ")"
    return str(value)

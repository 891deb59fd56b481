"""What will be started for one stage: the exact command, its environment, its inputs and its folder."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.config.resolve import Resolved
from pipeline.errors import PipelineError
from pipeline.execution.profiles import wandb_environment
from pipeline.family import STAGES
from pipeline.home import environments_dir, workspace
from pipeline.run.freshness import input_keys, input_paths, remote_places, stage_folder
from pipeline.run.log import new_stamp
from pipeline.schemas.fields import keys_of


class InputState(StrEnum):
    EXISTS = "exists"
    MADE_EARLIER = "made earlier in this run"
    REMOTE = "fetched by the stage"
    MISSING = "missing"
    OPTIONAL = "not there (optional)"


@dataclass(frozen=True)
class PlannedInput:
    """One input of a stage and whether it will be there."""

    key: str
    value: str
    state: InputState
    made_by: str

    @property
    def text(self) -> str:
        return f"made by {self.made_by}" if self.state is InputState.MADE_EARLIER else str(self.state)


@dataclass(frozen=True)
class Plan:
    """Everything needed to start one stage as a process."""

    resolved: Resolved[Any]
    folder: Path
    handoff: Path
    argv: list[str]
    environment: dict[str, str]
    """What is added to the caller's environment; secrets are among them and are shown as set or unset only."""
    inputs: list[PlannedInput] = field(default_factory=list)

    @property
    def missing(self) -> list[PlannedInput]:
        return [item for item in self.inputs if item.state is InputState.MISSING]

    def command_line(self) -> str:
        """The command as one could paste it into a shell, without secrets."""
        shown = {name: value for name, value in self.environment.items() if name not in self.resolved.secrets}
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in shown.items()), shlex.join(self.argv)])


def make_plan(resolved: Resolved[Any], verbose: bool = False) -> Plan:
    """Plan one stage on this machine. Starts nothing, writes nothing."""
    stage = resolved.stage
    folder = stage_folder(resolved)
    handoff = folder / "logs" / f"{new_stamp()}.config.yaml"
    processes = getattr(resolved.config, "nproc_per_node", 1)
    alone = processes == 1 and not rendezvous()
    program = [f"pipeline-{stage}"] if alone else module_command(f"pipeline_{stage}.main", processes)
    argv = [*in_environment_of(stage), *program, "--config", str(handoff)]
    if verbose:
        argv.append("--verbose")
    environment = {
        **environment_of(stage, processes),
        **(wandb_environment() if getattr(resolved.config, "wandb", False) is not False else {}),
        **resolved.secrets,
    }
    return Plan(resolved, folder, handoff, argv, environment, planned_inputs(resolved))


def in_environment_of(stage: str) -> list[str]:
    """The beginning of a command line that runs a program in a stage's environment, as the lock file has it."""
    project = ["--project", str(workspace()), "--frozen", "--no-dev", "--package", f"pipeline-{stage}"]
    return [uv_command(), "run", *project]


def module_command(module: str, processes: int | str = 1) -> list[str]:
    """A Python module as a program; several processes of it are started by torchrun (`gpu`: one for each GPU)."""
    meeting = rendezvous()
    if processes == 1 and not meeting:
        return ["python", "-m", module]
    torchrun = ["python", "-m", "pipeline.retrieval.launch", *(meeting or ["--standalone"])]
    return [*torchrun, "--nproc-per-node", str(processes), "-m", module]


def rendezvous() -> list[str]:
    """Where the processes of several machines meet, as arguments of torchrun; none for work on one machine.

    A job that starts this program on each of its machines says so in the environment.
    """
    place, nodes = os.environ.get("PIPELINE_RENDEZVOUS"), os.environ.get("PIPELINE_NODES", "1")
    if not place or nodes == "1":
        return []
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", place]
    return ["--nnodes", nodes, *meeting, "--rdzv-id", os.environ.get("PIPELINE_RENDEZVOUS_ID", "pipeline")]


def environment_of(stage: str, processes: int | str = 1) -> dict[str, str]:
    """What such a command needs to be told beyond the caller's environment.

    Processes on one machine share its cores; torchrun would leave each a single one.
    """
    shared = {"UV_PROJECT_ENVIRONMENT": str(environments_dir() / stage), "PIPELINE_HOME": str(workspace())}
    if processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return shared
    count = processes if isinstance(processes, int) else 8
    return {**shared, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}


def planned_inputs(resolved: Resolved[Any]) -> list[PlannedInput]:
    """Every input with its state. A missing path inside run_dir counts as made by the earlier stage that makes it."""
    run_dir = Path(resolved.config.run_dir).resolve()
    specs = keys_of(type(resolved.config))
    planned = []
    for name, made_by in input_keys(resolved).items():
        paths = input_paths(resolved, name)
        remote = remote_places(resolved, name)
        planned += [PlannedInput(name, place, InputState.REMOTE, made_by) for place in remote]
        for path in paths:
            earlier = made_by in STAGES and run_dir in path.absolute().parents
            if path.exists():
                state = InputState.EXISTS
            elif earlier:
                state = InputState.MADE_EARLIER
            else:
                state = InputState.OPTIONAL if specs[name].spec.optional_input else InputState.MISSING
            planned.append(PlannedInput(name, str(path), state, made_by))
    return planned


def uv_command() -> str:
    """The uv that started us, else the one on PATH."""
    found = os.environ.get("UV") or shutil.which("uv")
    if not found:
        raise PipelineError("uv is not on PATH; every stage runs in its own uv environment", fix="pip install uv")
    return found

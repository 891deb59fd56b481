"""A task: one stage of ours that is to run elsewhere, as the command line that is started there.

The far side runs this same program without --run or --batch, so freshness, locks, manifests, environments and
torchrun are the same there as here. This side only decides where, with which environment and in which order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import is_file_name, split_override
from pipeline.config.resolve import config_files
from pipeline.execution.plan import Plan
from pipeline.family import STAGES
from pipeline.home import workspace
from pipeline.schemas import schema_of
from pipeline.schemas.fields import canonical, keys_of


@dataclass(frozen=True)
class Task:
    """One stage to be run elsewhere.

    Attributes:
        config: what `-c` was given: a name, or a path (absolute unless the person wrote a relative one).
        overrides: `KEY=VALUE` as the person wrote them, without secrets; `run` also knows `STAGE.KEY=VALUE`.
        plan: the plan for this machine: the resolved configuration, its inputs, its secrets.
        chained: part of `pipeline FAMILY run`, which skips what is fresh.
        options: further options of the command line, such as --force.
    """

    family: str
    stage: str
    config: str
    overrides: tuple[str, ...]
    plan: Plan
    chained: bool = False
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.family}-{self.stage}"

    @property
    def arguments(self) -> list[str]:
        """What follows `pipeline` on the far side's command line."""
        return joined_arguments([self])

    def own_files(self) -> list[Path]:
        """Configuration files of the person's own: the far side must be given them."""
        files = config_files(self.family, self.stage, self.config)
        return [path for path in files if workspace() not in path.resolve().parents]

    def there(self, code: str) -> Task:
        """The task for where the checkout lies at `code`: a configuration file in it is named as it lies there."""
        path = Path(self.config).resolve()
        if is_file_name(self.config) and workspace() in path.parents:
            return replace(self, config=f"{code}/{path.relative_to(workspace())}")
        return self


def make_task(
    plan: Plan,
    config: str,
    overrides: Sequence[str],
    chained: bool = False,
    options: Sequence[str] = (),
) -> Task:
    """A task from a plan and from what the person wrote."""
    family, stage = plan.resolved.family, plan.resolved.stage
    kept = [text for text in overrides if not _is_secret(family, text)]
    if is_file_name(config):
        config = os.path.expanduser(config)
    return Task(family, stage, config, tuple(kept), plan, chained, tuple(options))


def joined_arguments(tasks: Sequence[Task]) -> list[str]:
    """The arguments of one command line that runs these tasks: one, or several of one `run` that follow each other."""
    first, last = tasks[0], tasks[-1]
    further = [text for task in tasks[1:] for text in task.overrides if text not in first.overrides]
    words = ["run", "--from", first.stage, "--to", last.stage] if first.chained else [first.stage]
    return [first.family, *words, "-c", first.config, *first.options, *first.overrides, *further]


def far_command(arguments: Sequence[str], home: str, uv: str = "uv") -> list[str]:
    """The whole command line on the far side; `home` is where the checkout lies there."""
    return [uv, "run", "--project", home, "--frozen", "--no-dev", "pipeline", *arguments]


def _is_secret(family: str, text: str) -> bool:
    """Whether an override holds a secret of any stage: such a one goes by the environment, never in a command line."""
    name, _ = split_override(text)
    owner, _, inner = name.partition(".")
    said = inner if owner in STAGES and inner else name
    for stage in STAGES:
        schema = schema_of(family, stage)
        item = keys_of(schema).get(canonical(schema, said))
        if item and item.spec.secret_env:
            return True
    return False

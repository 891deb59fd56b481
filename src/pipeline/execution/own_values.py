"""What a person wrote for this machine and means here: `~/`, `${oc.env:NAME}`, and keys in their own files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipeline.config import split_override
from pipeline.config.resolve import config_files
from pipeline.config.yaml_file import read_yaml
from pipeline.errors import PipelineError
from pipeline.execution.names import looks_secret
from pipeline.execution.profile import Profile
from pipeline.execution.tasks import Task
from pipeline.family import STAGES
from pipeline.schemas.fields import canonical, keys_of

_VARIABLE = re.compile(r"\$\{oc\.env:\s*([^,}\s]+)")


def settled(task: Task, profile: Profile) -> Task:
    """The task with such values added as overrides, as they are here; those of `env_vars` are known there.

    A secret is never written into a command line: its key is emptied, and the environment says it.
    """
    config = task.plan.resolved.config
    keys = keys_of(type(config))
    there = set(profile.env_vars) | ({"NEMO_RUN_DIR"} if profile.executor == "slurm" else set())
    prefix = f"{task.stage}." if task.chained else ""
    added = []
    for name, raw in _said(task).items():
        variables = {found for text in _texts(raw) for found in _VARIABLE.findall(text)} - there
        if not variables and not _from_home(raw):
            continue
        if keys[name].spec.secret_env:
            added.append(f"{prefix}{name}=null")
        elif not any(looks_secret(variable) for variable in variables):
            added.append(f"{prefix}{name}={_as_text(_at_home(getattr(config, name)))}")
    return replace(task, overrides=(*task.overrides, *added))


def refuse_homes(task: Task) -> None:
    """For another machine, whose home is not ours.

    Raises:
        PipelineError: a value begins with `~/`.
    """
    for name, raw in _said(task).items():
        if _from_home(raw):
            raise PipelineError(
                f"{task.stage}: {name}={_as_text(raw)}: ~ is the home of this machine, not the cluster's",
                fix=f"give the path as it is there, {name}=/…",
            )


def refuse_secrets(task: Task) -> None:
    """For files that are copied to another machine and stay there.

    Raises:
        PipelineError: one of the configuration's files holds a secret itself.
    """
    schema = type(task.plan.resolved.config)
    keys = keys_of(schema)
    for path in config_files(task.family, task.stage, task.config):
        for said, value in read_yaml(path)[0].items():
            item = keys.get(canonical(schema, said))
            if item and item.spec.secret_env and value and "${" not in str(value):
                raise PipelineError(
                    f"{path} holds a secret ({said}) and would be copied as it is",
                    fix=f"take it out of the file; export {item.spec.secret_env}=…",
                )


def _said(task: Task) -> dict[str, Any]:
    """Every key of the stage that a file or an override says, as it is written there; the last one counts."""
    schema = type(task.plan.resolved.config)
    said: dict[str, Any] = {}
    for path in config_files(task.family, task.stage, task.config):
        said |= {canonical(schema, name): value for name, value in read_yaml(path)[0].items()}
    for text in task.overrides:
        name, value = split_override(text)
        owner, _, inner = name.partition(".")
        if owner in STAGES and inner:
            if owner != task.stage:
                continue
            name = inner
        top, _, inner = canonical(schema, name).partition(".")
        said[top] = [said.get(top), value] if inner else value  # KEY.INNER=VALUE changes one entry alone
    return {name: value for name, value in said.items() if name in keys_of(schema)}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _from_home(raw: Any) -> bool:
    return any(text.startswith("~/") for text in _texts(raw))


def _at_home(value: Any) -> Any:
    """The value with this machine's home for `~`, however deep."""
    if isinstance(value, dict):
        return {name: _at_home(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def _as_text(value: Any) -> str:
    """A value as `KEY=VALUE` says it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""`env.toml`: profiles (where `--run PROFILE` and `--batch PROFILE` send a stage) and settings such as `[wandb]`."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.config.coerce import NotThisType, coerce
from pipeline.errors import MISSING, ConfigProblem, PipelineError
from pipeline.execution.profile import Profile
from pipeline.schemas.fields import canonical, keys_of

RESERVED = frozenset({"wandb", "cli", "cache", "artifacts"})
"""Tables of env.toml that are settings, not profiles."""
_NOT_SHOWN = frozenset({"env_vars"})
"""Its values may be secrets."""


def env_file(start: Path | None = None) -> Path:
    """`PIPELINE_ENV_FILE`, else the nearest env.toml from the current folder up to the first pyproject.toml."""
    named = os.environ.get("PIPELINE_ENV_FILE")
    if named:
        return Path(named)
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "env.toml").is_file():
            return folder / "env.toml"
        if (folder / "pyproject.toml").is_file():
            break
    raise PipelineError(f"no env.toml from {start} upward", fix="copy env.toml.example to env.toml and fill it in")


def load_profile(name: str, overrides: Iterable[tuple[str, str]] = ()) -> Profile:
    """One profile of env.toml with what it `extends` filled in, and `run.env.KEY=VALUE` of the command line over it.

    Args:
        overrides: (KEY, VALUE) pairs; `env_vars.NAME` and `images.STAGE` set one entry of a table.

    Raises:
        PipelineError: no file, not TOML, unknown profile, a circle of `extends`, or everything wrong with its keys.
    """
    path = env_file()
    tables = _read(path)
    profiles = {key: table for key, table in tables.items() if key not in RESERVED and isinstance(table, dict)}
    table = _extended(path, profiles, name, ())
    values = {canonical(Profile, key): value for key, value in table.items()}
    origins = dict.fromkeys(values, f"{path.name} [{name}]")
    said = [(canonical(Profile, key), value) for key, value in overrides]
    for replaced in _replaced_by({key for key, _ in said}):
        values.pop(replaced, None)
    for key, value in said:
        top, _, inner = key.partition(".")
        values[top] = {**values.get(top, {}), inner: value} if inner else value
        origins[top] = "command line"
    return _checked(name, values, origins)


def _replaced_by(said: set[str]) -> set[str]:
    """What a person says on the command line wins over the more special keys of the profile, too."""
    special = {"partition": {"run_partition", "batch_partition"}, "container_image": {"images"}}
    named = {key.partition(".")[0] for key in said}
    return {item for general, items in special.items() if general in said for item in items - named}


def _checked(name: str, values: dict[str, Any], origins: dict[str, str]) -> Profile:
    keys = keys_of(Profile)
    typed: dict[str, Any] = {"name": name}
    problems = []
    for key, value in values.items():
        if key not in keys or key == "name":
            near = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean {near[0]}?" if near else "docs/running-elsewhere.md lists the keys there are"
            problems.append(ConfigProblem(key, MISSING, f"unknown key; {hint}", origins[key]))
            continue
        try:
            typed[key] = coerce(keys[key], value)
        except NotThisType as error:
            problems.append(ConfigProblem(key, MISSING if key in _NOT_SHOWN else value, str(error), origins[key]))
    profile = Profile(**typed)
    problems += [
        ConfigProblem(key, MISSING if key in _NOT_SHOWN else values.get(key, MISSING), text, name)
        for key, text in profile.problems()
    ]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise PipelineError(f"profile {name!r} of env.toml:\n{lines}", fix="docs/running-elsewhere.md has every key")
    return profile


def wandb_environment() -> dict[str, str]:
    """`[wandb]` of env.toml as the environment variables that the wandb library reads; empty without the table.

    `PIPELINE_WANDB` says that a person asked for it here: variables that lie about in a shell turn nothing on.
    """
    try:
        path = env_file()
    except PipelineError:
        return {}
    table = _read(path).get("wandb") if path.is_file() else None
    if not isinstance(table, dict):
        return {}
    if "project" not in table:
        raise PipelineError(f"{path}: [wandb] lacks `project`", fix="name the Weights & Biases project to log to")
    if "api_key" in table:
        raise PipelineError(
            f"{path}: [wandb] holds an api_key", fix="take it out; set WANDB_API_KEY in the environment"
        )
    return {"PIPELINE_WANDB": "1", **{f"WANDB_{name.upper()}": str(value) for name, value in table.items()}}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise PipelineError(f"{path}: not valid TOML: {error}") from error


def _extended(path: Path, profiles: dict[str, Any], name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name not in profiles:
        near = difflib.get_close_matches(name, profiles, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise PipelineError(f"{path} has no profile {name!r}", fix=f"{hint}known: {', '.join(profiles) or 'none'}")
    if name in seen:
        raise PipelineError(f"{path}: `extends` goes round in a circle: {' -> '.join((*seen, name))}")
    table = dict(profiles[name])
    parent = table.pop("extends", None)
    base = _extended(path, profiles, parent, (*seen, name)) if parent else {}
    return {**base, **table}

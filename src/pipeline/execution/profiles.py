"""Execution profiles from `env.toml`: where `--run PROFILE` and `--batch PROFILE` send a stage."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

RESERVED = frozenset({"wandb", "cli", "cache", "artifacts"})
"""Tables of env.toml that are settings, not profiles."""


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


def load_profile(name: str) -> dict[str, Any]:
    """One profile of env.toml with what it `extends` filled in.

    Raises:
        PipelineError: no file, not TOML, unknown profile, or a circle of `extends`.
    """
    path = env_file()
    tables = _read(path)
    profiles = {key: table for key, table in tables.items() if key not in RESERVED and isinstance(table, dict)}
    return _extended(path, profiles, name, ())


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

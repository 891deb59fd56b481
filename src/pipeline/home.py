"""Where the workspace is: the checkout that holds the stages, their configurations and the lock file."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from pipeline.errors import PipelineError


@cache
def workspace() -> Path:
    """`PIPELINE_HOME`, else the checkout this package is imported from."""
    named = os.environ.get("PIPELINE_HOME")
    candidates = [Path(named).expanduser()] if named else list(Path(__file__).resolve().parents)
    for folder in candidates:
        if (folder / "stages").is_dir() and (folder / "uv.lock").is_file():
            return folder.resolve()
    raise PipelineError(
        f"no pipeline workspace at {candidates[0]}: it must hold stages/ and uv.lock",
        fix="set PIPELINE_HOME to your checkout of the project",
    )


def stage_dir(stage: str) -> Path:
    return workspace() / "stages" / stage


def stage_config_dir(family: str, stage: str) -> Path:
    return stage_dir(stage) / "config" / family


def environments_dir() -> Path:
    """Where the stages' virtual environments live: `PIPELINE_ENV_DIR`, else .venvs in the workspace."""
    return Path(os.environ.get("PIPELINE_ENV_DIR") or workspace() / ".venvs")

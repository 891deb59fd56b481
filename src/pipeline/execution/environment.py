"""What a task is told through its environment, and which of it is secret."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.execution.names import is_variable, looks_secret
from pipeline.execution.plan import InputState, Plan
from pipeline.execution.profile import Profile
from pipeline.execution.tasks import Task
from pipeline.schemas.fields import keys_of


@dataclass(frozen=True)
class Environment:
    """Variables for one task. `secret` values are never shown, and never in a command line or a lasting file."""

    plain: dict[str, str]
    secret: dict[str, str]
    unset: tuple[str, ...] = ()
    """Secrets the stage may ask for that this machine has not."""

    def lines(self) -> list[str]:
        """For a dry run: values, and secrets as set or unset."""
        shown = [f"{name}={value}" for name, value in self.plain.items()]
        return [*shown, *(f"{name} (secret, set)" for name in self.secret), *(f"{name} (unset)" for name in self.unset)]


def environment_for(tasks: Sequence[Task], profile: Profile) -> Environment:
    """What tasks are given: the profile's `env_vars`, W&B settings, and the secrets of their own stages alone.

    Raises:
        PipelineError: `env_vars` name a variable that is not set, or a key `…api_key_env` names none.
    """
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    asked: list[str] = []
    for task in tasks:
        plain |= _passed_on(task.plan)
        asked += secret_names(task.plan)
        secret |= {name: value for name in asked if (value := _value_of(name))} | task.plan.resolved.secrets
    for name, value in profile.environment().items():
        (secret if looks_secret(name) else plain)[name] = value
    return Environment(plain, secret, tuple(name for name in dict.fromkeys(asked) if name not in secret))


def secret_names(plan: Plan) -> list[str]:
    """Environment variables with secrets that a stage with this configuration may ask for.

    Raises:
        PipelineError: a key `…api_key_env` holds something else, perhaps the secret itself: it is not shown.
    """
    config = plan.resolved.config
    names = {item.spec.secret_env for item in keys_of(type(config)).values() if item.spec.secret_env}
    for name in keys_of(type(config)):
        value = getattr(config, name)
        if isinstance(value, str) and value and name.endswith("api_key_env"):
            if not is_variable(value):
                raise PipelineError(
                    f"{name} holds no name of an environment variable",
                    fix=f"export MY_API_KEY=…, and set {name}=MY_API_KEY",
                )
            names.add(value)
        elif isinstance(value, str) and name.endswith("provider") and f"{value.upper()}_API_KEY" in os.environ:
            names.add(f"{value.upper()}_API_KEY")
    if any(item.state is InputState.REMOTE and not item.value.startswith("embedded:") for item in plan.inputs):
        names.add("HF_TOKEN")
    if "PIPELINE_WANDB" in plan.environment or getattr(config, "wandb", False):
        names.add("WANDB_API_KEY")
    return sorted(names)


def hf_home() -> Path:
    """The Hugging Face folder of this machine: its cache, and the token of `hf auth login`."""
    return Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").absolute()


def _value_of(name: str) -> str | None:
    if name == "HF_TOKEN" and not os.environ.get(name) and (hf_home() / "token").is_file():
        return (hf_home() / "token").read_text(encoding="utf-8").strip()
    return os.environ.get(name)


def _passed_on(plan: Plan) -> dict[str, str]:
    """Settings of this machine that belong to the work: W&B's from env.toml, and other addresses of services."""
    wandb = {name: value for name, value in plan.environment.items() if name.startswith(("WANDB_", "PIPELINE_WANDB"))}
    addresses = {name: value for name, value in os.environ.items() if name.endswith("_API_BASE_URL")}
    return {**wandb, **(addresses if hasattr(plan.resolved.config, "provider") else {})}


def secret_file(secrets: Mapping[str, str]) -> str:
    """The text of a file that a POSIX shell sources with `set -a`."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in secrets.items())

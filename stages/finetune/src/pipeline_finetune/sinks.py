"""Where training curves can go besides our own files; nothing is imported, or asked of a network, unless enabled."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import PipelineError

log = logging.getLogger("pipeline")


class Sink(Protocol):
    """Takes the numbers of a step."""

    def write(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Events for `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run on Weights & Biases; project, entity and the rest come from WANDB_* variables, as env.toml set them."""

    def __init__(self, folder: Path, run_id: str, settings: dict[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(dir=str(folder), id=run_id, name=_run_name(run_id), config=settings, resume="allow")

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


def _run_name(run_id: str) -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return f"{os.environ.get('WANDB_NAME', run_id)}-{job}" if job else os.environ.get("WANDB_NAME", run_id)


def open_sinks(
    folder: Path, run_id: str, settings: dict[str, Any], *, tensorboard: bool, wandb: bool | None
) -> list[Sink]:
    """The enabled sinks; their files go below `folder`.

    Args:
        wandb: None enables it where env.toml has `[wandb]`, and only warns where it then cannot work.

    Raises:
        PipelineError: a sink was asked for by its key, but its package or account is missing.
    """
    sinks: list[Sink] = []
    if tensorboard:
        _need("tensorboard")
        sinks.append(TensorBoard(folder / "tensorboard"))
    if wandb or (wandb is None and os.environ.get("PIPELINE_WANDB")):
        reason = _why_not_wandb()
        if reason is None:
            sinks.append(WeightsAndBiases(folder / "wandb", run_id, settings))
        elif wandb:
            raise PipelineError(f"wandb=true, but {reason}", fix="set WANDB_API_KEY, or wandb=false")
        else:
            log.warning("env.toml has [wandb], but %s: training is not logged there", reason)
    return sinks


def _why_not_wandb() -> str | None:
    """What is missing for Weights & Biases; looks at this machine alone."""
    if find_spec("wandb") is None:
        return "the package wandb is not installed"
    if os.environ.get("WANDB_MODE") in ("offline", "disabled") or os.environ.get("WANDB_API_KEY"):
        return None
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return None if netrc.is_file() and "wandb" in netrc.read_text(errors="replace") else "WANDB_API_KEY is not set"


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise PipelineError(
            f"{package}=true needs the package {package}", fix=f"uv pip install {package}, or {package}=false"
        )

"""What happened in training, step by step: JSON lines for programs, plain lines for people."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.run.files import read_jsonl, write_jsonl
from pipeline.run.progress import duration
from pipeline_finetune.sinks import Sink

_WINDOW = 20
_STEPS = "pipeline.finetune.steps"
log = logging.getLogger("pipeline")


@contextmanager
def train_log(folder: Path) -> Iterator[None]:
    """Copy the log to `logs/train.log` as it is written, with one more line for every step."""
    path = folder / "logs" / "train.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S"))
    main, steps = logging.getLogger("pipeline"), logging.getLogger(_STEPS)
    steps.propagate, steps.level = False, logging.INFO
    main.addHandler(handler)
    steps.addHandler(handler)
    try:
        yield
    except PipelineError as error:  # the terminal gets it from the runner
        steps.error("error: %s", error)
        raise
    finally:
        main.removeHandler(handler)
        steps.removeHandler(handler)
        handler.close()


class Tracker:
    """Appends to `training.jsonl` and `validation.jsonl`, one flushed line each, so that a killed run keeps them.

    Lines after the step a run continues from belong to work that is done again: they are taken out.
    """

    def __init__(
        self, folder: Path, run_id: str, *, start_step: int, total_steps: int, sinks: Sequence[Sink] = ()
    ) -> None:
        self.run_id, self.total, self.sinks = run_id, total_steps, sinks
        self.training, self.validation = folder / "training.jsonl", folder / "validation.jsonl"
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._text = logging.getLogger(_STEPS)
        for path in (self.training, self.validation):
            _keep_until(path, start_step)

    def step(self, *, step: int, epoch: int, seconds: float, examples: int, tokens: int, **values: float) -> float:
        """Write the line of a finished step (counted from 1) and return the seconds left."""
        self._recent.append(seconds)
        eta = (self.total - step) * sum(self._recent) / len(self._recent)
        line = {
            "run_id": self.run_id,
            "step": step,
            "epoch": epoch,
            **{name: value if math.isfinite(value) else None for name, value in values.items()},
            "examples_per_s": round(examples / seconds, 2),
            "tokens_per_s": round(tokens / seconds, 1),
            "time_per_step": round(seconds, 4),
            "eta_s": round(eta, 1),
            "timestamp": _now(),
        }
        _append(self.training, line)
        curves = {name: value for name, value in line.items() if isinstance(value, float)}
        self._to_sinks(step, {f"train/{name}": value for name, value in curves.items()})
        self._text.info(
            "step %d/%d epoch %d loss %.4f lr %.3g grad norm %.3f, %.0f tokens/s, %s left",
            step,
            self.total,
            epoch,
            values["loss"],
            values["lr"],
            values["grad_norm"],
            tokens / seconds,
            duration(eta),
        )
        return eta

    def validated(self, *, step: int, epoch: int, **values: float) -> None:
        line = {"run_id": self.run_id, "step": step, "epoch": epoch, **values, "timestamp": _now()}
        _append(self.validation, line)
        self._to_sinks(step, {name.replace("val_", "val/", 1): value for name, value in values.items()})

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()

    def _to_sinks(self, step: int, values: dict[str, float]) -> None:
        for sink in self.sinks:
            sink.write(step, values)


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, allow_nan=False) + "\n")


def _keep_until(path: Path, step: int) -> None:
    kept = []
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):  # the process died in the middle of its last line
            path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        kept = [line for _, line in read_jsonl(path) if line["step"] <= step]
    write_jsonl(path, kept)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_run_id(fingerprint: str) -> str:
    return f"{fingerprint[:8]}-{time.strftime('%Y%m%d-%H%M%S')}"

"""How models are asked: what changes an answer, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sampling:
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int | None = None
    seed: int | None = None

    def body(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class CallOptions:
    """How calls are made; nothing here changes an answer but `redact`.

    `parallel` calls at once for each provider; `batch_folder` set: chat calls go through the batch API, whose state
    is kept there.
    """

    parallel: int = 4
    requests_per_minute: int | None = None
    max_tokens_total: int | None = None
    max_cost: float | None = None
    prices: Mapping[str, Any] = field(default_factory=dict)
    redact: tuple[str, ...] = ()
    batch_folder: Path | None = None

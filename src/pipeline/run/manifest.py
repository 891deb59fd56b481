"""`manifest.json`: written last, it says what a stage made, from what, and with which configuration."""

from __future__ import annotations

import json
import platform
import socket
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.home import workspace
from pipeline.run.files import write_json
from pipeline.run.snapshot import MANIFEST, Snapshot, sha256_of

SCHEMA_VERSION = 1
STARTED = ".started.json"


@dataclass
class Manifest:
    """The finished work of one stage. Code version and lock hash are shown; they never make anything stale."""

    stage: str
    family: str
    stage_version: int
    profile: str
    config: dict[str, Any]
    inputs: dict[str, Snapshot | None]
    """Config key -> what the input was."""
    outputs: Snapshot
    """File relative to the stage's folder -> record."""
    counts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    """Set when the work was saved but a gate did not hold: the stage is not done then."""
    started: str = ""
    finished: str = ""
    seconds: float = 0.0
    host: str = field(default_factory=socket.gethostname)
    python: str = field(default_factory=platform.python_version)
    code_version: str = field(default_factory=lambda: version("pipeline"))
    lock_hash: str = field(default_factory=lambda: lock_hash())
    schema_version: int = SCHEMA_VERSION

    def save(self, folder: Path) -> None:
        """Publish the manifest, then take the start marker away: from here on the stage is done."""
        write_json(folder / MANIFEST, asdict(self))
        (folder / STARTED).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path) -> Manifest | None:
        """The folder's manifest, or None if there is none.

        Raises:
            PipelineError: the file is damaged or from a newer version.
        """
        path = folder / MANIFEST
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise PipelineError(f"{path} is damaged: {error}", fix="run the stage again with --force") from error
        if data.get("schema_version", 0) > SCHEMA_VERSION:
            raise PipelineError(f"{path} was written by a newer version", fix="update your checkout")
        known = cls.__dataclass_fields__
        return cls(**{name: value for name, value in data.items() if name in known})


def mark_started(folder: Path, stage: str) -> None:
    """Leave a marker that a run began; it stays when the run dies."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / STARTED, {"stage": stage, "started": now, "host": socket.gethostname()})


def lock_hash() -> str:
    try:
        return sha256_of(workspace() / "uv.lock")[:16]
    except (OSError, PipelineError):
        return "unknown"

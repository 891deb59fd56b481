"""What makes two training runs the same run: settings that move the result, and the content of what is read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from pipeline.assets import is_embedded
from pipeline.contract import EncodingContract
from pipeline.run.snapshot import snapshot
from pipeline.schemas.fields import keys_of
from pipeline.schemas.finetune import FinetuneConfig
from pipeline_finetune.schedule import Schedule
from pipeline_finetune.setup import SourceRows
from pipeline_finetune.tracking import new_run_id
from pipeline_finetune.trainer import RunIdentity


def identify(config: FinetuneConfig, contract: EncodingContract, schedule: Schedule, rows: SourceRows) -> RunIdentity:
    """The run's identity over settings and the content (not the place) of everything it reads."""
    val = rows.val
    contents = {
        "train": rows.train.digest(),
        "val": val.digest() if val else None,
        "searched": val.corpus_digest() if val and config.val_corpus_size else None,
        "base_model": content_hash(model_path(config.base_model)),
    }
    fingerprint = run_fingerprint(config, contract, schedule, contents)
    return RunIdentity(fingerprint, new_run_id(fingerprint), config.seed)


def run_fingerprint(
    config: FinetuneConfig, contract: EncodingContract, schedule: Schedule, contents: dict[str, str | None]
) -> str:
    """16 hex digits over configuration, contract, schedule and what is read.

    Args:
        contents: name -> hash of something that training reads; None where there is none.
    """
    settings = {
        name: getattr(config, name)
        for name, item in keys_of(type(config)).items()
        if item.spec.affects_output and not item.spec.reads and name not in _PUBLISHING
    }
    plan = {name: value for name, value in dataclasses.asdict(schedule).items() if name in _PLAN}
    described = {
        "version": config.version,
        "settings": settings,
        "contract": dataclasses.asdict(contract),
        "plan": plan,
        "contents": contents,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]


_PUBLISHING = {"select_best", "best_metric", "restore_from"}  # which checkpoint is used, not how it is trained
_PLAN = ("rows", "global_batch", "total_steps", "warmup_steps")


def content_hash(path: Path | None) -> str | None:
    """Hash over names and contents of a file or folder."""
    files = snapshot(path) if path else None
    if files is None:
        return None
    listed = sorted((name, item["sha256"]) for name, item in files.items())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def model_path(reference: str) -> Path | None:
    """The folder of a local base model. A hub model is told by its name and revision, which the contract holds."""
    path = Path(reference).expanduser()
    return path if not is_embedded(reference) and path.is_dir() else None

"""Where in a run's folders the trained model lies."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import PipelineError

_INSIDE = ("model/consolidated", "consolidated", "LATEST", "checkpoints", "stage2_finetune")
"""Looked into in this order: a checkpoint, its model folder, a checkpoints folder, the stage, the run."""


def find_model_folder(reference: str) -> str:
    """The model that a run directory, a stage, its checkpoints or `LATEST` stand for; other references as they are.

    `LATEST` may be a link, or a text file (`LATEST`, `LATEST.txt`) that names the checkpoint.

    Raises:
        PipelineError: a folder that holds no model.
    """
    place = Path(reference).expanduser()
    if not place.exists():
        return reference
    return str(_inside(place, reference))


def _inside(place: Path, reference: str) -> Path:
    if place.is_file():
        named = place.read_text(encoding="utf-8").strip()
        return _inside(place.parent / named, reference)
    if (place / "config.json").is_file() or (place / "modules.json").is_file():
        return place
    for name in _INSIDE:
        if (place / name).exists():
            return _inside(place / name, reference)
    if (place / "LATEST.txt").is_file():
        return _inside(place / "LATEST.txt", reference)
    raise PipelineError(
        f"{reference}: no model in {place} (no config.json there, nor under {', '.join(_INSIDE)})",
        fix="run finetune first, or name the folder of a model",
    )

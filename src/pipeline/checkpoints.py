"""Where in a run's folders the trained model lies."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.assets import resolve_model
from pipeline.errors import PipelineError
from pipeline.run.freshness import is_remote

log = logging.getLogger("pipeline")
_INSIDE = ("model/consolidated", "consolidated", "LATEST", "checkpoints", "stage2_finetune")
"""Looked into in this order: a checkpoint, its model folder, a checkpoints folder, the stage, the run."""
_POINTERS = ("LATEST", "LATEST.txt")


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
    if place.is_file() and place.name in _POINTERS:
        place = place.parent / _pointed(place)
    if (place / "config.json").is_file() or (place / "modules.json").is_file():
        return place
    for name in (*_INSIDE, *_POINTERS):
        inner = place / name
        if inner.is_dir() or (name in _POINTERS and inner.is_file()):
            return _inside(inner, reference)
    raise PipelineError(
        f"{reference}: no model in {place} (no config.json there, nor under {', '.join(_INSIDE)})",
        fix="run finetune first, or name the folder of a model",
    )


def _pointed(pointer: Path) -> str:
    """The checkpoint that a text file names; it lies beside the file."""
    try:
        named = pointer.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"cannot read {pointer}: {error}") from error
    if named in ("", ".", "..", *_POINTERS) or "/" in named:
        raise PipelineError(f"{pointer}: {named!r} is no checkpoint beside it", fix="name the checkpoint's folder")
    return named


def metadata_folder(reference: str, revision: str | None = None) -> Path | None:
    """A folder with what a model says of itself (pooling, prompts, lengths); of a hub model only these files are read.

    None where nothing can be read, with a warning: a hub model without network.
    """
    place = Path(resolve_model(reference)).expanduser()
    if place.is_dir():
        return place
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(reference, revision=revision, allow_patterns=["*.json", "*/config.json"]))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        log.warning(f"cannot read what {reference} says of its pooling, prompts and lengths ({reason}): defaults hold")
        return None


def existing_model(key: str, wanted: str, stand_in: str | None, insist: bool) -> str:
    """`wanted`, or `stand_in` with a warning where that is a folder that does not exist (yet).

    `insist`: a person named the model on the command line, where none stands in for it.

    Raises:
        PipelineError: the folder does not exist, and nothing stands in.
    """
    if is_remote(wanted) or Path(resolve_model(wanted)).expanduser().exists():
        return wanted
    fix = f"train it (`pipeline embed run`), or set {key}"
    if stand_in is None or insist:
        raise PipelineError(f"{key}: {wanted} does not exist", fix=fix)
    log.warning(f"{key} {wanted} does not exist: {stand_in} stands in ({fix})")
    return stand_in

"""Is there a servable model in this folder? Everything that is wrong is said at once, before anything starts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.contract import FILE_NAME as CONTRACT_FILE
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.onnx_session import METADATA_FILE, MODEL_FILE, TOKENIZER_FILE
from pipeline.run.snapshot import sha256_of


@dataclass(frozen=True)
class Artifact:
    """A checked export: its folder, its contract, and what export wrote about it."""

    folder: Path
    contract: EncodingContract
    metadata: dict[str, Any]

    @property
    def model_sha256(self) -> str:
        return self.metadata["files"][MODEL_FILE]["sha256"]


def open_artifact(folder: Path, family: str) -> Artifact:
    """Check an export folder of `family`: files present, readable, of one model, not changed since they were written.

    Raises:
        PipelineError: lists every problem found.
    """
    problems: list[str] = []
    if not (folder / TOKENIZER_FILE).is_file():
        problems.append(f"{TOKENIZER_FILE} is missing")
    elif not isinstance(_read(folder / TOKENIZER_FILE, problems), dict):
        problems.append(f"{TOKENIZER_FILE} is not a tokenizer")
    contract = _contract(folder, family, problems)
    metadata = _model(folder, problems)
    if problems or contract is None or metadata is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise PipelineError(f"{folder} cannot be served:\n{lines}", fix=_fix(folder, family, contract))
    return Artifact(folder, contract, metadata)


def _contract(folder: Path, family: str, problems: list[str]) -> EncodingContract | None:
    if not (folder / CONTRACT_FILE).is_file():
        problems.append(f"{CONTRACT_FILE} is missing: how texts are read is not known")
        return None
    if not isinstance(_read(folder / CONTRACT_FILE, problems), dict):
        return None
    contract = EncodingContract.load(folder)
    if contract and contract.family != family:
        problems.append(f"{CONTRACT_FILE} is of the {contract.family} family, this is `pipeline {family} deploy`")
    return contract


def _model(folder: Path, problems: list[str]) -> dict[str, Any] | None:
    """The export's metadata, after its model files were compared with it."""
    if not (folder / MODEL_FILE).is_file():
        problems.append(f"{MODEL_FILE} is missing")
    if not (folder / METADATA_FILE).is_file():
        problems.append(f"{METADATA_FILE} is missing")
        return None
    metadata = _read(folder / METADATA_FILE, problems)
    files = metadata.get("files") if isinstance(metadata, dict) else None
    if not isinstance(files, dict) or MODEL_FILE not in files:
        problems.append(f"{METADATA_FILE} does not list {MODEL_FILE}")
        return None
    for name, record in files.items():
        path = folder / name
        if not path.is_file():
            if name != MODEL_FILE:  # that one has been reported
                problems.append(f"{name} is missing")
        elif path.stat().st_size != record["size"]:
            problems.append(f"{name} has {path.stat().st_size} bytes, {record['size']} were exported")
        elif sha256_of(path) != record["sha256"]:
            problems.append(f"{name} is not the file that was exported (another sha256)")
    return metadata


def _read(path: Path, problems: list[str]) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return None


def _fix(folder: Path, family: str, contract: EncodingContract | None) -> str:
    if contract and contract.family != family:
        return f"use `pipeline {contract.family} deploy` for it"
    inner = folder / "onnx"
    if (inner / MODEL_FILE).is_file():
        return f"set model_dir={inner}"
    if (folder / "model.plan").is_file():
        return "a TensorRT engine is served by backend=nim; backend=onnx needs the onnx folder of the export"
    return f"run `pipeline {family} export`, or set model_dir to the folder of an ONNX export"

"""Is there a servable model in this folder? Everything that is wrong is said at once, before anything starts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.contract import FILE_NAME as CONTRACT_FILE
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.onnx_session import (
    LISTING_FILE,
    METADATA_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    open_tokenizer,
)
from pipeline.run.snapshot import sha256_of

ENGINE_FILE = "model.plan"


@dataclass(frozen=True)
class Artifact:
    """A checked ONNX export: its folder, its contract, and what export wrote about it."""

    folder: Path
    contract: EncodingContract
    metadata: dict[str, Any]

    @property
    def model_sha256(self) -> str:
        return self.metadata["files"][MODEL_FILE]["sha256"]


def open_artifact(folder: Path, family: str) -> Artifact:
    """Check an export folder of `family`: all files there, readable, unchanged, of one model, and of the last export.

    Raises:
        PipelineError: lists every problem found.
    """
    problems: list[str] = []
    contract = _contract(folder, family, problems)
    _tokenizer(folder, contract, problems)
    metadata = _model(folder, MODEL_FILE, contract, problems)
    if problems or contract is None or metadata is None:
        raise _refused(folder, family, contract, problems)
    return Artifact(folder, contract, metadata)


def check_engine(folder: Path, family: str) -> EncodingContract | None:
    """Check a folder with a TensorRT engine and return its contract; one that was built elsewhere may have none.

    Raises:
        PipelineError: lists every problem found.
    """
    problems: list[str] = []
    contract = _contract(folder, family, problems) if (folder / CONTRACT_FILE).is_file() else None
    _tokenizer(folder, contract, problems)
    if (folder / METADATA_FILE).is_file():
        _model(folder, ENGINE_FILE, contract, problems)
    elif not (folder / ENGINE_FILE).is_file():
        problems.append(f"{ENGINE_FILE} is missing")
    if problems:
        raise _refused(folder, family, contract, problems)
    return contract


def _refused(folder: Path, family: str, contract: EncodingContract | None, problems: list[str]) -> PipelineError:
    lines = "\n".join(f"  {problem}" for problem in problems)
    return PipelineError(f"{folder} cannot be served:\n{lines}", fix=_fix(folder, family, contract))


def _tokenizer(folder: Path, contract: EncodingContract | None, problems: list[str]) -> None:
    if not (folder / TOKENIZER_FILE).is_file():
        problems.append(f"{TOKENIZER_FILE} is missing")
    elif not isinstance(_read(folder / TOKENIZER_FILE, problems), dict):
        problems.append(f"{TOKENIZER_FILE} is not a tokenizer")
    elif contract:
        try:
            open_tokenizer(folder / TOKENIZER_FILE, contract)
        except PipelineError as error:
            problems.append(error.message)


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


def _model(folder: Path, main: str, contract: EncodingContract | None, problems: list[str]) -> dict[str, Any] | None:
    """The export's metadata, after its contract and its model files, `main` among them, were compared with it."""
    if not (folder / main).is_file():
        problems.append(f"{main} is missing")
    if not (folder / METADATA_FILE).is_file():
        problems.append(f"{METADATA_FILE} is missing")
        return None
    metadata = _read(folder / METADATA_FILE, problems)
    files = metadata.get("files") if isinstance(metadata, dict) else None
    if not isinstance(files, dict) or main not in files:
        problems.append(f"{METADATA_FILE} does not list {main}")
        return None
    told = metadata.get("contract_digest")
    if contract and told and told != contract.digest():
        problems.append(f"{CONTRACT_FILE} is not the one that was exported ({contract.digest()}, expected {told})")
    _listed(folder, problems)
    for name, record in files.items():
        path = folder / name
        if not path.is_file():
            if name != main:  # that one has been reported
                problems.append(f"{name} is missing")
        elif path.stat().st_size != record["size"]:
            problems.append(f"{name} has {path.stat().st_size} bytes, {record['size']} were exported")
        elif sha256_of(path) != record["sha256"]:
            problems.append(f"{name} is not the file that was exported (another sha256)")
    return metadata


def _listed(folder: Path, problems: list[str]) -> None:
    """An export lists its forms beside them. One that it does not list was made of an earlier checkpoint."""
    if not (folder.parent / LISTING_FILE).is_file():
        return
    listing = _read(folder.parent / LISTING_FILE, problems)
    entries = listing.get("exports") if isinstance(listing, dict) else None
    if not isinstance(entries, dict):
        return
    paths = [entry.get("path") for entry in entries.values() if isinstance(entry, dict)]
    if folder.resolve() not in [(folder.parent / path).resolve() for path in paths if isinstance(path, str)]:
        problems.append(f"{folder.name} is left from an earlier export: {LISTING_FILE} beside it does not list it")


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
    if (folder / ENGINE_FILE).is_file() and not (folder / TOKENIZER_FILE).is_file():
        return f"a container reads texts itself: put {TOKENIZER_FILE} of the ONNX export beside {ENGINE_FILE}"
    if (folder / ENGINE_FILE).is_file():
        return "a TensorRT engine is served by backend=nim; backend=onnx needs the onnx folder of the export"
    return f"run `pipeline {family} export`, or set model_dir to the folder of an ONNX export"

"""What lies beside the graph: tokenizer, contract, and a description of where the model came from."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.assets import resolve_model
from pipeline.checkpoints import find_model_folder
from pipeline.contract import EncodingContract, contract_of_model
from pipeline.errors import PipelineError
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.onnx_session import METADATA_FILE, MODEL_FILE, TOKENIZER_FILE
from pipeline.run.files import write_json
from pipeline.run.snapshot import sha256_of

_VERSIONS = ("pipeline", "torch", "transformers", "onnx", "onnxruntime")
_ONNX_TYPES = {"tensor(int64)": "int64", "tensor(float)": "float32"}


def source_model(reference: str, family: str) -> tuple[Path, EncodingContract]:
    """The model's folder and the contract it carries. A checkpoint, a checkpoints folder or a run stands for its model.

    Raises:
        PipelineError: it is not a folder, holds no model, nothing in it says how it reads texts, or it is of another
            family.
    """
    folder = Path(find_model_folder(resolve_model(reference)))
    if not folder.is_dir():
        raise PipelineError(f"model_path: {reference} is not a folder", fix="give the folder of a consolidated model")
    contract = contract_of_model(folder)
    if contract is None:
        raise PipelineError(
            f"{folder} does not say how it reads texts: it has neither encoding_contract.json nor modules.json",
            fix="export what `finetune` wrote (…/LATEST/model/consolidated), or a sentence-transformers model",
        )
    if contract.family != family:
        raise PipelineError(
            f"{folder} is a model for {contract.family}", fix=f"use `pipeline {contract.family} export`"
        )
    if not contract.share_encoder:
        raise PipelineError(
            f"{folder} has one encoder for queries and one for passages; exporting two is not built yet",
            fix="train with share_encoder=true",
        )
    return folder, contract.need_one_vector(str(folder))


def write_package(
    model: BiEncoder | CrossEncoder, source: Path, contract: EncodingContract, folder: Path
) -> EncodingContract:
    """Write tokenizer and contract into `folder`; returns the contract as written.

    tokenizer.json names the padding token, so that a reader without `transformers` pads with the right one.
    """
    rules = getattr(model.tokenizer, "backend_tokenizer", None)
    if rules is None:
        raise PipelineError(
            f"{source}: its tokenizer has no fast form (tokenizer.json), which serving without transformers needs",
            fix="save the model with a fast tokenizer",
        )
    model.tokenizer.save_pretrained(folder)
    plain = rules.__class__.from_str(rules.to_str())
    plain.no_truncation()
    plain.enable_padding(pad_id=model.tokenizer.pad_token_id or 0, pad_token=model.tokenizer.pad_token or "[PAD]")
    plain.save(str(folder / TOKENIZER_FILE))
    written = contract.with_(
        dimension=model.contract.dimension,
        pooling=model.contract.pooling,
        tokenizer_hash=model.contract.tokenizer_hash,
        dtype=contract.dtype or model.contract.dtype,
    )
    written.save(folder)
    return written


def write_metadata(
    folder: Path,
    source: Path,
    contract: EncodingContract,
    encoding: dict[str, Any],
    session: Any,
    dtype: str,
    opset: int,
    more: dict[str, Any] | None = None,
) -> Path:
    """Write metadata.json: interface, weights' origin and hashes, versions. The same model gives the same bytes.

    `encoding`: how an input is made of texts, for readers who do not know the contract.
    `more`: what only this form has.
    """
    weights = sorted(source.glob("*.safetensors"))
    return write_json(
        folder / METADATA_FILE,
        {
            "schema_version": 1,
            "format": "onnx",
            "dtype": dtype,
            "opset": opset,
            "inputs": [_port(item) for item in session.get_inputs()],
            "outputs": [_port(item) for item in session.get_outputs()],
            "dimension": contract.dimension,
            "encoding": encoding,
            **(more or {}),
            "contract_digest": contract.digest(),
            "files": {path.name: file_record(path) for path in sorted(folder.glob(f"{MODEL_FILE}*"))},
            "source": {"path": str(source.resolve()), "weights": {path.name: file_record(path) for path in weights}},
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}},
        },
    )


def _port(item: Any) -> dict[str, Any]:
    return {"name": item.name, "type": _ONNX_TYPES.get(item.type, item.type), "shape": item.shape}


def file_record(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}

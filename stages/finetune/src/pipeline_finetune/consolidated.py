"""A model folder that `transformers`, sentence-transformers and this pipeline load alike."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline.assets import resolve_model
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.encoder import QUERY_FOLDER, BiEncoder
from pipeline.retrieval.rerank_head import HEAD_FOLDER
from pipeline_finetune.sentence_transformers_files import IDENTITY, write_bi_encoder, write_cross_encoder

_LICENCE_FILES = ("LICENSE*", "NOTICE*")


def save_consolidated(model: BiEncoder | CrossEncoder, folder: Path) -> Path:
    """Write weights, tokenizer, sentence-transformers metadata and the encoding contract to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, CrossEncoder):
        _save_cross_encoder(model, folder)
    else:
        _save_bi_encoder(model, folder)
    _copy_licences(model.contract.base_model, folder)
    model.contract.save(folder)
    return folder


def _save_bi_encoder(encoder: BiEncoder, folder: Path) -> None:
    encoder.model.save_pretrained(folder)
    save_tokenizer(encoder.tokenizer, folder)
    if encoder.query_model is not None:
        encoder.query_model.save_pretrained(folder / QUERY_FOLDER)
        save_tokenizer(encoder.tokenizer, folder / QUERY_FOLDER)
    write_bi_encoder(encoder.contract, folder)


def _save_cross_encoder(model: CrossEncoder, folder: Path) -> None:
    if model.head is None:
        # Else sentence-transformers would put a sigmoid behind the one logit.
        model.body.config.sentence_transformers = {"activation_fn": IDENTITY}
    model.body.save_pretrained(folder)
    save_tokenizer(model.tokenizer, folder)
    write_cross_encoder(model.contract, model.tokenizer, folder, with_head=model.head is not None)
    if model.head is not None:
        weights = {f"linear.{name}": value.detach().cpu() for name, value in model.head.state_dict().items()}
        save_file(_contiguous(weights), folder / HEAD_FOLDER / "model.safetensors", metadata={"format": "pt"})


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save the tokenizer without the truncation and padding that training left in it, and without a chat template.

    sentence-transformers sends every text through a chat template that it finds; no model of ours was trained so.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)


def _contiguous(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What safetensors can write."""
    return {name: value.contiguous() for name, value in weights.items()}


def _copy_licences(base_model: str, folder: Path) -> None:
    source = Path(resolve_model(base_model))
    for pattern in _LICENCE_FILES:
        for path in source.glob(pattern) if source.is_dir() else ():
            shutil.copyfile(path, folder / path.name)

"""A model folder that `transformers`, sentence-transformers and this pipeline load alike."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract
from pipeline.retrieval.encoder import BiEncoder
from pipeline.run.files import write_json

_POOLING_FLAGS = {"avg": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
_LICENCE_FILES = ("LICENSE*", "NOTICE*")


def save_consolidated(encoder: BiEncoder, folder: Path) -> Path:
    """Write weights, tokenizer, sentence-transformers metadata and the encoding contract to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder.model.save_pretrained(folder)
    save_tokenizer(encoder.tokenizer, folder)
    write_sentence_transformers(encoder.contract, folder)
    _copy_licences(encoder.contract.base_model, folder)
    encoder.contract.save(folder)
    return folder


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save the tokenizer without the truncation and padding that training left in it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(folder)


def write_sentence_transformers(contract: EncodingContract, folder: Path) -> None:
    """The files that make `SentenceTransformer(folder)` give this pipeline's vectors.

    Names and keys are the long-standing ones, which old and new versions read. The library knows one length: the
    longer of the two, so that it never cuts a text that the model was trained to read whole.
    """
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if contract.normalize:
        modules.append(("2_Normalize", "Normalize"))
    write_json(
        folder / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
            for number, (path, name) in enumerate(modules)
        ],
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": contract.dimension,
            **{f"pooling_mode_{flag}": mode == contract.pooling for mode, flag in _POOLING_FLAGS.items()},
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "include_prompt": True,
        },
    )
    if contract.normalize:
        (folder / "2_Normalize").mkdir(exist_ok=True)
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": contract.query_prefix, "document": contract.passage_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if contract.normalize else "dot",
        },
    )
    write_json(
        folder / "sentence_bert_config.json",
        {
            "max_seq_length": max(contract.query_max_length, contract.passage_max_length),
            "do_lower_case": False,
        },
    )


def _copy_licences(base_model: str, folder: Path) -> None:
    source = Path(resolve_model(base_model))
    for pattern in _LICENCE_FILES:
        for path in source.glob(pattern) if source.is_dir() else ():
            shutil.copyfile(path, folder / path.name)

"""Where a reranker's head comes from: the checkpoint's own classifier, a saved linear layer, or a new one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.errors import PipelineError
from pipeline.retrieval.transformer import (
    LoadOptions,
    ModelFiles,
    check_complete,
    find_model,
    load_tokenizer,
    load_transformer,
    optional_file,
    readable_errors,
    settle_direction,
)
from pipeline.run.files import read_json

logger = logging.getLogger("pipeline")

HEAD_FOLDER = "2_Dense"
"""Sub-folder of a saved head: a sentence-transformers Dense module."""
_INITIAL_SPREAD = 0.02


@dataclass(frozen=True)
class RerankParts:
    """`head` is None where `body` is a ready classifier. `pooling` goes with the head; `trained`: it is no new one."""

    body: nn.Module
    head: nn.Linear | None
    tokenizer: Any
    pooling: str
    trained: bool = True


def load_body_and_head(
    reference: str, pooling: str, dtype: torch.dtype, options: LoadOptions, seed: int
) -> RerankParts:
    """Load `reference` for scoring pairs.

    Raises:
        PipelineError: the model cannot be found or read, is not for reranking, or has more than one label.
    """
    files = find_model(reference, options, "rerank")
    if files.config is not None:
        return _registered(files, pooling, dtype, options, seed)
    saved = _saved_head(files, options)
    if saved is None and not options.extract_submodel and _has_own_head(files.settings):
        return _ready(files, pooling, dtype, options)
    body, tokenizer = load_transformer(reference, dtype, options, task="rerank")
    return RerankParts(body, saved or _new_head(body, reference, seed), tokenizer, pooling, saved is not None)


def _saved_head(files: ModelFiles, options: LoadOptions) -> nn.Linear | None:
    """The head kept beside the body. A Dense module that gives vectors, as embedding models have, is none."""
    settings = optional_file(files, options, f"{HEAD_FOLDER}/config.json")
    if settings is None or read_json(Path(settings)).get("module_output_name") != "scores":
        return None
    place = optional_file(files, options, f"{HEAD_FOLDER}/model.safetensors")
    if place is None:
        return None
    weights = load_file(place)
    return _head(weights["linear.weight"], weights.get("linear.bias"))


def _has_own_head(settings: dict[str, Any]) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in settings.get("architectures") or ())


def _ready(files: ModelFiles, pooling: str, dtype: torch.dtype, options: LoadOptions) -> RerankParts:
    """A checkpoint that scores by itself, kept as it is: its attention, pooling and head belong together."""
    from transformers import AutoModelForSequenceClassification

    with readable_errors(files.reference):
        tokenizer = load_tokenizer(files, options)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            files.place, output_loading_info=True, **options.weights(dtype)
        )
    check_complete(report, files.reference, optional=())
    if model.config.num_labels != 1:
        raise PipelineError(
            f"{files.reference} has {model.config.num_labels} labels; a reranker gives one score",
            fix="take a reranker with num_labels=1, or the base model this one was made from",
        )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id  # decoders find their last token by it
    logger.info("%s is a ready reranker: its own head and pooling are kept, pooling=%s is not used", files.reference,
                pooling)  # fmt: skip
    return RerankParts(model, None, tokenizer, pooling)


def _registered(files: ModelFiles, pooling: str, dtype: torch.dtype, options: LoadOptions, seed: int) -> RerankParts:
    """A type with its own code: the stock body, and the linear layer `score` that the checkpoint may hold.

    Its configuration says how it pools and by what its logits are divided; the latter goes into the head's weights.
    """
    from transformers import AutoModelForSequenceClassification

    files.config.num_labels = 1
    with readable_errors(files.reference):
        tokenizer = load_tokenizer(files, options)
        whole, report = AutoModelForSequenceClassification.from_pretrained(
            files.place, config=files.config, output_loading_info=True, **options.weights(dtype)
        )
    check_complete(report, files.reference, optional=("score",))
    model = whole.base_model
    settle_direction(model, files, options)
    if any("score" in name for name in report["missing_keys"]):
        return RerankParts(model, _new_head(model, files.reference, seed), tokenizer, pooling, trained=False)
    own = files.settings.get("pooling") or pooling
    temperature = files.settings.get("temperature") or 1.0
    logger.info("%s is a ready reranker: its head is kept, with pooling=%s and its scores divided by %g",
                files.reference, own, temperature)  # fmt: skip
    return RerankParts(model, _head(whole.score.weight.detach() / temperature, None), tokenizer, own)


def _head(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A linear layer in fp32 with these weights [1, width]; a missing bias [1] starts at zero."""
    head = nn.Linear(weight.shape[1], 1)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias if bias is not None else torch.zeros(1))
    return head


def _new_head(model: nn.Module, reference: str, seed: int) -> nn.Linear:
    """A head with small random weights, the same for the same seed."""
    width = model.config.hidden_size
    generator = torch.Generator().manual_seed(seed)
    logger.warning("%s has no head for reranking: a new one is drawn at random (seed %d); train it before use",
                   reference, seed)  # fmt: skip
    return _head(torch.randn(1, width, generator=generator) * _INITIAL_SPREAD, None)

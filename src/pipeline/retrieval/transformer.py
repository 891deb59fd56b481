"""Load a transformer and its tokenizer: any encoder, or a decoder made bidirectional."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from pipeline.assets import resolve_model
from pipeline.errors import PipelineError
from pipeline.retrieval.architectures import Task, check_task, stock_config
from pipeline.retrieval.bidirectional import is_decoder, make_bidirectional

logger = logging.getLogger("pipeline")


@dataclass(frozen=True)
class LoadOptions:
    """How weights are fetched and what may run for them. `extract_submodel` is an attribute path of the model."""

    revision: str | None = None
    trust_remote_code: bool = False
    attn_implementation: str | None = None
    extract_submodel: str | None = None

    @property
    def source(self) -> dict[str, Any]:
        """Arguments of every `from_pretrained`."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    def weights(self, dtype: torch.dtype) -> dict[str, Any]:
        """Arguments of a model's `from_pretrained`."""
        kernel = {"attn_implementation": self.attn_implementation} if self.attn_implementation else {}
        return {"dtype": dtype, "use_safetensors": True, **kernel, **self.source}


@dataclass(frozen=True)
class ModelFiles:
    """Where a model lies, its config.json, and transformers' own configuration if the type is a registered one."""

    reference: str
    place: str
    settings: dict[str, Any]
    config: Any | None

    @property
    def configured(self) -> dict[str, Any]:
        """The argument that makes `from_pretrained` take our configuration."""
        return {} if self.config is None else {"config": self.config}


def find_model(reference: str, options: LoadOptions, task: Task) -> ModelFiles:
    """Read config.json alone and refuse what cannot work, before any weight is fetched.

    Raises:
        PipelineError: no such model; a type that is not for `task`.
    """
    from transformers import PretrainedConfig

    place = resolve_model(reference)
    with readable_errors(reference):
        settings, _ = PretrainedConfig.get_config_dict(place, revision=options.revision)
        if not settings:
            raise OSError(f"{place} holds no config.json")
    check_task(settings, task, reference, options.extract_submodel)
    return ModelFiles(reference, place, settings, stock_config(settings))


def load_transformer(
    reference: str, dtype: torch.dtype, options: LoadOptions | None = None, *, task: Task = "embed"
) -> tuple[nn.Module, Any]:
    """The model (token vectors out, no head) and its tokenizer.

    Decoders come back bidirectional, unless the checkpoint is a finished causal embedding model.

    Raises:
        PipelineError: the model cannot be found or read, is not for `task`, or cannot be made bidirectional.
    """
    from transformers import AutoModel

    options = options or LoadOptions()
    files = find_model(reference, options, task)
    with readable_errors(reference):
        tokenizer = load_tokenizer(files, options)
        model, report = AutoModel.from_pretrained(
            files.place, output_loading_info=True, **files.configured, **options.weights(dtype)
        )
    check_complete(report, reference)
    if options.extract_submodel:
        model = _part(model, options.extract_submodel, reference)
    settle_direction(model, files, options)
    return model, tokenizer


def load_tokenizer(files: ModelFiles, options: LoadOptions) -> Any:
    """The model's tokenizer; one without a padding token pads with its end token (padding is masked everywhere)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(files.place, **files.configured, **options.source)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def settle_direction(model: nn.Module, files: ModelFiles, options: LoadOptions) -> None:
    """Make a decoder bidirectional, unless its maker says that it is an encoder as it is."""
    if not is_decoder(model):
        return
    if files.config is None and _is_finished_encoder(files, options):
        logger.info("%s is a finished embedding model with causal attention: kept as it was trained", files.reference)
        return
    make_bidirectional(model, files.reference)
    logger.info("%s is a decoder: every layer now attends in both directions", files.reference)


def longest_input(model: nn.Module) -> int | None:
    """Most tokens the model can read; None if its configuration names no limit."""
    positions = getattr(model.config, "max_position_embeddings", None)
    embeddings = getattr(getattr(model, "base_model", model), "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if positions and getattr(table, "padding_idx", None) is not None:
        return positions - table.padding_idx - 1  # RoBERTa and its kin count positions from after the padding's
    return positions if positions and positions > 0 else None


def check_length(model: nn.Module, wanted: int, reference: str, keys: str) -> None:
    """Refuse lengths that the model has no positions for.

    Raises:
        PipelineError: `wanted` tokens are more than the model reads.
    """
    limit = longest_input(model)
    if limit and wanted > limit:
        raise PipelineError(
            f"{reference} reads at most {limit} tokens, but a max length of {wanted} is asked for",
            fix=f"set {keys} to at most {limit}",
        )


def check_complete(report: dict[str, Any], reference: str, optional: tuple[str, ...] = ("pooler",)) -> None:
    """Refuse a model some of whose weights would be random. `optional` names parts that are not used.

    Raises:
        PipelineError: the checkpoint lacks weights of the architecture that its config.json names.
    """
    lacking = sorted(name for name in report["missing_keys"] if not any(part in name for part in optional))
    if lacking:
        raise PipelineError(
            f"{reference} lacks {len(lacking)} of its weights, such as {lacking[0]}",
            fix="fetch the model again, or correct model_type in its config.json",
        )


@contextmanager
def readable_errors(reference: str) -> Iterator[None]:
    """Turn what transformers raises into one clear error, and keep its progress bars away."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise PipelineError(
            f"cannot load the model {reference}: {lines[0]}",
            fix="give an existing folder or hub id; `embedded:all-MiniLM-L6-v2` needs no network",
        ) from error


def _part(model: nn.Module, path: str, reference: str) -> nn.Module:
    """The model at `path` inside `model`, as a model of its own that can be saved and loaded again."""
    from transformers import MODEL_MAPPING, AutoModel

    try:
        part = attrgetter(path)(model)
    except AttributeError as error:
        names = ", ".join(name for name, _ in model.named_children())
        raise PipelineError(f"extract_submodel: {reference} has no part {path!r}", fix=f"its parts: {names}") from error
    config = getattr(part, "config", None)
    stock = stock_config(config.to_dict()) if config is not None else None
    if stock is not None:
        known = AutoModel.from_config(stock, dtype=part.dtype)
        known.load_state_dict(part.state_dict())
        return known
    if config is None or MODEL_MAPPING.get(type(config), None) is not type(part):
        raise PipelineError(
            f"extract_submodel: {path!r} of {reference} is a {type(part).__name__}, no model that loads by itself",
            fix="name a whole text model inside, such as language_model",
        )
    return part


def _is_finished_encoder(files: ModelFiles, options: LoadOptions) -> bool:
    """True for a sentence-transformers model whose config.json does not say that it is bidirectional."""
    found = optional_file(files, options, "modules.json")
    return found is not None and files.settings.get("is_causal") is not False


def optional_file(files: ModelFiles, options: LoadOptions, name: str) -> str | None:
    """Where the model's file `name` lies on this machine (fetched if need be), or None if it has none."""
    from transformers.utils import cached_file

    return cached_file(
        files.place,
        name,
        revision=options.revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )

"""Model types that ship with their own Python code, read here by transformers' own classes instead.

Their weights have the names of the stock architecture; what their code adds is an attention without causal mask
(`bidirectional`) and, for reranking, pooling and a linear head (`cross_encoder`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.errors import PipelineError

Task = Literal["embed", "rerank"]


@dataclass(frozen=True)
class Architecture:
    """The stock model type that stands for a registered one, and what it is for."""

    stock: str
    tasks: tuple[Task, ...]


REGISTERED = {
    "llama_bidirec": Architecture("llama", ("embed", "rerank")),
    "ministral3_bidirec": Architecture("ministral3", ("embed",)),
}
_PARENTS = {"llama_nemotron_vl": "language_model"}
"""Models that hold a text encoder among other parts: model type -> where."""
_OWN_KEYS = ("auto_map", "architectures", "model_type", "transformers_version")


def check_task(settings: dict[str, Any], task: Task, reference: str, extract_submodel: str | None) -> None:
    """Refuse, before any weight is read, what this model type cannot do. `settings` is its config.json.

    Raises:
        PipelineError: the type is not for `task`, holds the encoder as a part, or is an encoder with a decoder.
    """
    kind = settings.get("model_type", "")
    known = REGISTERED.get(kind)
    if known and task not in known.tasks:
        raise PipelineError(
            f"{reference}: models of type {kind} are for {' and '.join(known.tasks)}, not for {task}",
            fix="take a reranker or a plain base model" if task == "rerank" else "take an embedding model",
        )
    if kind in _PARENTS and not extract_submodel:
        raise PipelineError(
            f"{reference}: a model of type {kind} reads images too; its text part alone can be trained",
            fix=f"set extract_submodel={_PARENTS[kind]} (and trust_remote_code with base_model_revision)",
        )
    if settings.get("is_encoder_decoder"):
        raise PipelineError(
            f"{reference}: {kind} is an encoder with a decoder, which gives no vector of its input",
            fix="take an encoder-only or a decoder-only model",
        )


def stock_config(settings: dict[str, Any]) -> Any | None:
    """transformers' own configuration for a registered type; None for every other type."""
    from transformers import CONFIG_MAPPING

    known = REGISTERED.get(settings.get("model_type", ""))
    if known is None:
        return None
    kept = {name: value for name, value in settings.items() if name not in _OWN_KEYS}
    return CONFIG_MAPPING[known.stock].from_dict(kept)

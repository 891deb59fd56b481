"""Vectors from an encoder in this process (`embed_provider: local`). Needs the stage's extra `local`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract, contract_of_model
from pipeline.errors import PipelineError

LOCAL = "local"


class LocalEncoder:
    """A bi-encoder under the contract it carries (prefixes, pooling, lengths), else the default one.

    Raises:
        PipelineError: the extra is not installed, or there is no such model.
    """

    def __init__(self, reference: str) -> None:
        try:
            from pipeline.retrieval.encoder import BiEncoder
            from pipeline.retrieval.hardware import pick_device
        except ImportError as error:
            raise PipelineError(
                f"embed_provider={LOCAL} needs torch and transformers, which are not installed here",
                fix="UV_PROJECT_ENVIRONMENT=.venvs/sdg uv sync --frozen --no-dev --package pipeline-sdg --extra local; "
                "or set embed_model=null",
            ) from error
        place = Path(resolve_model(reference)).expanduser()
        own = contract_of_model(place) if place.is_dir() else None
        contract = (own or EncodingContract(base_model=reference)).need_one_vector(reference)
        self._encoder = BiEncoder.load(str(place) if place.is_dir() else reference, contract, device=pick_device())

    async def embed(self, texts: list[str], kind: Literal["query", "passage"]) -> np.ndarray:
        """Vectors (len(texts), dimension) float32; calls to endpoints go on meanwhile."""
        encode = self._encoder.encode_queries if kind == "query" else self._encoder.encode_passages
        return await asyncio.to_thread(encode, texts)

"""What Text Embeddings Inference tells of itself, and how its requests say where a long text is cut.

https://huggingface.github.io/text-embeddings-inference/
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from pipeline.contract import EncodingContract
from pipeline.retrieval.onnx_session import Truncate
from pipeline_deploy.serving import Limits

INFO, HEALTH = "/info", "/health"
_POOLING = {"avg": "mean", "last": "last_token"}


class TeiCut(BaseModel):
    """The fields with which a request says what becomes of a text that is too long."""

    truncate: bool | None = Field(None, description="false: refuse texts that are too long. Without it they are cut.")
    truncation_direction: Annotated[
        Literal["Left", "Right"], BeforeValidator(lambda side: side.capitalize() if isinstance(side, str) else side)
    ] = Field("Right", description="The side at which a text is cut.")

    @property
    def cut(self) -> Truncate:
        """The same in NIM's words."""
        if self.truncate is False:
            return "NONE"
        return "END" if self.truncation_direction == "Right" else "START"


def info(contract: EncodingContract, name: str, dtype: str | None, limits: Limits) -> dict[str, Any]:
    """The reply of GET /info: the fields that mean something for this server."""
    kinds = ("pair",) if contract.family == "rerank" else ("query", "passage")
    return {
        "model_id": name,
        "model_sha": None,
        "model_dtype": {"fp32": "float32", "fp16": "float16"}.get(dtype or "", dtype),
        "model_type": _model_type(contract),
        "max_input_length": max(contract.max_length(kind) for kind in kinds),
        "max_batch_tokens": limits.batch_tokens,
        "max_client_batch_size": limits.request_texts,
        "auto_truncate": True,
        "version": version("pipeline"),
    }


def _model_type(contract: EncodingContract) -> dict[str, Any]:
    if contract.family == "rerank":
        return {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    return {"embedding": {"pooling": _POOLING.get(contract.pooling, contract.pooling)}}

"""Embeddings over HTTP: OpenAI's API with NIM's `input_type` and `truncate`, and Text Embeddings Inference's."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from pipeline.contract import EncodingContract
from pipeline_deploy.api import ApiError, json_reply, not_empty, wrong_model
from pipeline_deploy.serving import Route, Serving
from pipeline_deploy.tei import TeiCut

InputType = Literal["query", "passage"]


def _texts_only(value: Any) -> Any:
    if isinstance(value, str | list):
        not_empty(value)
    if isinstance(value, list):
        if any(isinstance(item, (int, list)) for item in value):
            raise ValueError("token ids are not accepted, send texts")
        if "" in value:
            not_empty("")
    return value


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


Texts = Annotated[str | list[str], BeforeValidator(_texts_only), AfterValidator(_listed)]
"""One text or several, read as a list."""


class EmbeddingRequest(BaseModel):
    """Body of POST /v1/embeddings. Unknown fields are ignored, as OpenAI's clients send some."""

    input: Texts = Field(description="One text or a list of texts.")
    model: str = Field(description="The served model's name; `NAME-query` and `NAME-passage` stand for input_type.")
    input_type: InputType | None = Field(
        None, description="Which prompt of the model is put before the texts. Without it: query."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="`base64`: little-endian float32, as OpenAI's clients ask for."
    )
    truncate: Literal["NONE", "START", "END"] = Field(
        "END", description="Texts that are too long: refuse them, cut their start, or cut their end."
    )
    dimensions: int | None = Field(None, description="Must be the model's own dimension if given.")

    def kind(self, served_name: str) -> InputType:
        """The prompt to use; checks the model's name on the way.

        Raises:
            ApiError: another model is asked for, or name and input_type disagree.
        """
        by_name: dict[str, InputType | None] = {
            served_name: None,
            f"{served_name}-query": "query",
            f"{served_name}-passage": "passage",
        }
        if self.model not in by_name:
            raise wrong_model(self.model, served_name)
        named = by_name[self.model]
        if named and self.input_type and named != self.input_type:
            raise ApiError(400, f"model {self.model!r} contradicts input_type {self.input_type!r}", param="input_type")
        return named or self.input_type or "query"


class TeiRequest(TeiCut):
    """Body of POST /embed (Text Embeddings Inference)."""

    inputs: Texts = Field(description="One text or a list of texts.")
    prompt_name: Literal["query", "document", "passage"] | None = Field(
        None, description="Which prompt of the model is put before the texts. Without it: none."
    )
    normalize: bool = Field(True, description="Vectors of length one. A model that gives those gives no others.")

    def kind(self, contract: EncodingContract) -> InputType:
        """Whose limit holds; without a prompt the longer one."""
        if self.prompt_name:
            return "query" if self.prompt_name == "query" else "passage"
        return "query" if contract.query_max_length > contract.passage_max_length else "passage"


async def embed(request: EmbeddingRequest, serving: Serving) -> Response:
    """Vectors of the request's texts."""
    encoder, texts, kind = serving.model, request.input, request.kind(serving.name)
    if request.dimensions not in (None, encoder.dimension):
        message = f"dimensions: this model gives {encoder.dimension}, not {request.dimensions}"
        raise ApiError(400, message, param="dimensions")
    prompt = encoder.contract.format_query if kind == "query" else encoder.contract.format_passage
    vectors, tokens = await serving.compute(
        len(texts), kind, "input", lambda: encoder.tokenize([prompt(text) for text in texts], kind, request.truncate)
    )
    return _reply(vectors, request.model, tokens, request.encoding_format)


async def embed_tei(request: TeiRequest, serving: Serving) -> Response:
    """The reply of Text Embeddings Inference: a bare list of vectors."""
    encoder, kind = serving.model, request.kind(serving.model.contract)
    contract = encoder.contract
    if contract.normalize and not request.normalize:
        raise ApiError(400, "normalize: this model's vectors have length one, there are no others", param="normalize")
    prompt = {None: str, "query": contract.format_query}.get(request.prompt_name, contract.format_passage)
    texts = [prompt(text) for text in request.inputs]
    vectors, _ = await serving.compute(len(texts), kind, "inputs", lambda: encoder.tokenize(texts, kind, request.cut))
    if request.normalize and not contract.normalize:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return json_reply(list(np.ascontiguousarray(vectors, dtype=np.float32)))


def _reply(vectors: np.ndarray, model: str, tokens: int, encoding: str) -> Response:
    """OpenAI's reply for fp32 vectors [texts, dimension]."""
    if encoding == "base64":
        rows = [base64.b64encode(row).decode("ascii") for row in np.ascontiguousarray(vectors, dtype="<f4")]
    else:
        rows = list(np.ascontiguousarray(vectors, dtype=np.float32))
    return json_reply(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


ROUTES = (
    Route("/v1/embeddings", "Embed texts.", EmbeddingRequest, embed),
    Route("/embed", "Embed texts (Text Embeddings Inference).", TeiRequest, embed_tei),
)

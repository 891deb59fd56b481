"""Embeddings over HTTP: OpenAI's API with NIM's `input_type` and `truncate`."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from fastapi import Response
from pydantic import BaseModel, Field, field_validator

from pipeline_deploy.api import ApiError, json_reply, not_empty, wrong_model
from pipeline_deploy.serving import Route, Serving

InputType = Literal["query", "passage"]


class EmbeddingRequest(BaseModel):
    """Body of POST /v1/embeddings. Unknown fields are ignored, as OpenAI's clients send some."""

    input: str | list[str] = Field(description="One text or a list of texts.")
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

    @field_validator("input", mode="before")
    @classmethod
    def _texts_only(cls, value: Any) -> Any:
        if isinstance(value, str | list):
            not_empty(value)
        if isinstance(value, list):
            if any(isinstance(item, (int, list)) for item in value):
                raise ValueError("token ids are not accepted, send texts")
            if "" in value:
                not_empty("")
        return value

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input

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


async def embed(request: EmbeddingRequest, serving: Serving) -> Response:
    """Vectors of the request's texts."""
    encoder, texts, kind = serving.model, request.texts, request.kind(serving.name)
    if request.dimensions not in (None, encoder.dimension):
        message = f"dimensions: this model gives {encoder.dimension}, not {request.dimensions}"
        raise ApiError(400, message, param="dimensions")
    prompt = encoder.contract.format_query if kind == "query" else encoder.contract.format_passage
    vectors, tokens = await serving.compute(
        len(texts), kind, "input", lambda: encoder.tokenize([prompt(text) for text in texts], kind, request.truncate)
    )
    return _reply(vectors, request.model, tokens, request.encoding_format)


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


ROUTES = (Route("/v1/embeddings", "Embed texts.", EmbeddingRequest, embed),)

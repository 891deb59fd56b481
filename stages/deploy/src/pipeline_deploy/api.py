"""The requests and replies of the service: OpenAI's embeddings API with NIM's `input_type` and `truncate`."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
import orjson
from fastapi import Request, Response
from pydantic import BaseModel, Field, ValidationError, field_validator

InputType = Literal["query", "passage"]
MOST_BODY_BYTES = 64 * 2**20


class ApiError(Exception):
    """A refusal in OpenAI's shape."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


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
        if isinstance(value, list):
            if not value:
                raise ValueError("must not be an empty list")
            if any(isinstance(item, (int, list)) for item in value):
                raise ValueError("token ids are not accepted, send texts")
        if value == "" or (isinstance(value, list) and "" in value):
            raise ValueError("must not be an empty text")
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
            raise ApiError(
                404, f"the model {self.model!r} is not served here, {served_name!r} is", "model_not_found", "model"
            )
        named = by_name[self.model]
        if named and self.input_type and named != self.input_type:
            raise ApiError(400, f"model {self.model!r} contradicts input_type {self.input_type!r}", param="input_type")
        return named or self.input_type or "query"


def embedding_reply(vectors: np.ndarray, model: str, tokens: int, encoding: str) -> Response:
    """OpenAI's reply for fp32 vectors [texts, dimension]."""
    if encoding == "base64":
        rows = [base64.b64encode(row).decode("ascii") for row in np.ascontiguousarray(vectors, dtype="<f4")]
    else:
        rows = list(np.ascontiguousarray(vectors, dtype=np.float32))
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def error_reply(status: int, message: str, code: str | None = None, param: str | None = None) -> Response:
    """OpenAI's error body."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Response(orjson.dumps(body), status, media_type="application/json")


async def read_request(http: Request) -> EmbeddingRequest:
    """Parse a body as JSON whatever type it claims to be: `curl -d` says that it is a form.

    Raises:
        ApiError: the body is too large, not JSON, or not a request; the message names every wrong field.
    """
    body = bytearray()
    async for part in http.stream():
        body += part
        if len(body) > MOST_BODY_BYTES:
            raise ApiError(413, f"the body is larger than {MOST_BODY_BYTES >> 20} MiB")
    try:
        return EmbeddingRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        text, param = _findings(error)
        raise ApiError(400, text, param=param) from error


def _findings(error: ValidationError) -> tuple[str, str | None]:
    """pydantic's findings as one sentence, and the first field they are about."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        name = str(item["loc"][0]) if item["loc"] else "body"
        found.setdefault(name, item["msg"].removeprefix("Value error, "))
    text = "; ".join(f"{name}: {problem[:1].lower()}{problem[1:]}" for name, problem in found.items())
    param = next(iter(found))
    return text, None if param == "body" else param

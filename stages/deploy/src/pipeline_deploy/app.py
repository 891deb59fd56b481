"""The HTTP application: NIM's and OpenAI's embeddings API over one exported model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from pipeline.retrieval.onnx_encoder import OnnxEncoder, TextTooLong
from pipeline.run.service import LIVE_PATH, READY_PATH
from pipeline_deploy.api import ApiError, EmbeddingRequest, embedding_reply, error_reply, read_request
from pipeline_deploy.artifacts import Artifact
from pipeline_deploy.batching import Batcher
from pipeline_deploy.telemetry import Outermost, Telemetry

EMBEDDINGS, MODELS, METADATA, METRICS = "/v1/embeddings", "/v1/models", "/v1/metadata", "/metrics"

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": EmbeddingRequest.model_json_schema()}},
    }
}


@dataclass(frozen=True)
class Limits:
    """Most texts in one request, and most padded tokens computed at once."""

    request_texts: int = 2048
    batch_tokens: int = 2048


def create_app(artifact: Artifact, encoder: OnnxEncoder, name: str, limits: Limits) -> FastAPI:
    """The application that serves `encoder` under the name `name`."""
    batcher, telemetry, created = Batcher(encoder.forward, limits.batch_tokens), Telemetry(), int(time.time())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()

    app = FastAPI(title="pipeline embeddings", version=version("pipeline"), lifespan=lifespan)
    known = frozenset({EMBEDDINGS, MODELS, METADATA, METRICS, LIVE_PATH, READY_PATH})
    app.add_middleware(Outermost, telemetry=telemetry, paths=known)
    _shape_errors(app)

    @app.post(EMBEDDINGS, summary="Embed texts.", openapi_extra=_BODY)
    async def embeddings(http: Request) -> Response:
        request = await read_request(http)
        kind, texts = request.kind(name), request.texts
        _check_size(request, texts, encoder.dimension, limits)
        prompt = encoder.contract.format_query if kind == "query" else encoder.contract.format_passage
        tokens = await asyncio.to_thread(encoder.tokenize, [prompt(text) for text in texts], kind, request.truncate)
        vectors = await batcher.encode(tokens)
        if not np.isfinite(vectors).all():
            raise ApiError(500, "the model gave a vector that is not a number")
        count = sum(len(item) for item in tokens)
        telemetry.texts.labels(kind).inc(len(texts))
        telemetry.tokens.labels(kind).inc(count)
        return embedding_reply(vectors, request.model, count, request.encoding_format)

    @app.get(MODELS, summary="The served model.")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model", "created": created, "owned_by": "pipeline"}]}

    @app.get(METADATA, summary="Which model this is, and how it treats texts.")
    async def metadata() -> dict[str, Any]:
        return describe(artifact, name)

    @app.get(LIVE_PATH, summary="The process answers.")
    async def live() -> dict[str, str]:
        return {"object": "health.response", "message": "Service is live.", "status": "live"}

    @app.get(READY_PATH, summary="Requests are answered.")
    async def ready() -> dict[str, str]:
        return {"object": "health.response", "message": "Service is ready.", "status": "ready"}

    @app.get(METRICS, summary="Prometheus metrics.")
    async def metrics() -> Response:
        return Response(generate_latest(telemetry.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def describe(artifact: Artifact, name: str) -> dict[str, Any]:
    """The served model's identity: enough to tell whether it is the one that was evaluated."""
    contract = artifact.contract
    return {
        "version": version("pipeline"),
        "modelInfo": [{"shortName": name, "modelUrl": ""}],
        "contract_digest": contract.digest(),
        "model_sha256": artifact.model_sha256,
        "dtype": artifact.metadata.get("dtype"),
        "dimension": contract.dimension,
        "base_model": contract.base_model,
        "query_max_length": contract.query_max_length,
        "passage_max_length": contract.passage_max_length,
        "normalized": contract.normalize,
    }


def _check_size(request: EmbeddingRequest, texts: list[str], dimension: int, limits: Limits) -> None:
    if len(texts) > limits.request_texts:
        raise ApiError(413, f"{len(texts)} texts in one request, at most {limits.request_texts}", param="input")
    if request.dimensions not in (None, dimension):
        raise ApiError(400, f"dimensions: this model gives {dimension}, not {request.dimensions}", param="dimensions")


def _shape_errors(app: FastAPI) -> None:
    """Every refusal in OpenAI's shape, also those of the framework."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return error_reply(error.status, error.message, error.code, error.param)

    @app.exception_handler(TextTooLong)
    async def too_long(_: Request, error: TextTooLong) -> Response:
        return error_reply(400, f"{error.message}; {error.fix}", "text_too_long", "input")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return error_reply(error.status_code, f"{request.method} {request.url.path}: {error.detail}")

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        logging.getLogger("pipeline").exception("the request failed", exc_info=error)
        return error_reply(500, "the server failed; its log says why")

"""The HTTP application: a family's routes over one exported model, and what every service of ours tells of itself."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from pipeline.run.service import LIVE_PATH, READY_PATH
from pipeline_deploy.api import ApiError, error_reply, read_request
from pipeline_deploy.artifacts import Artifact
from pipeline_deploy.batching import Batcher
from pipeline_deploy.families import ServedFamily
from pipeline_deploy.serving import Limits, Route, Serving
from pipeline_deploy.tei import HEALTH, INFO, info
from pipeline_deploy.telemetry import Outermost, Telemetry

MODELS, METADATA, METRICS = "/v1/models", "/v1/metadata", "/metrics"


def create_app(family: ServedFamily, artifact: Artifact, model: Any, name: str, limits: Limits) -> FastAPI:
    """The application that serves `model`, loaded by `family`, under the name `name`."""
    batcher, telemetry, created = Batcher(model.forward, limits.batch_tokens), Telemetry(), int(time.time())
    serving = Serving(model, name, limits, batcher, telemetry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()

    app = FastAPI(title=f"pipeline {family.gives}", version=version("pipeline"), lifespan=lifespan)
    own = {MODELS, METADATA, METRICS, LIVE_PATH, READY_PATH, INFO, HEALTH}
    known = frozenset(own | {route.path for route in family.routes})
    app.add_middleware(Outermost, telemetry=telemetry, paths=known)
    _shape_errors(app, family)
    for route in family.routes:
        _offer(app, route, serving)

    @app.get(MODELS, summary="The served model.")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model", "created": created, "owned_by": "pipeline"}]}

    @app.get(METADATA, summary="Which model this is, and how it treats texts.")
    async def metadata() -> dict[str, Any]:
        return describe(family, artifact, name)

    @app.get(LIVE_PATH, summary="The process answers.")
    async def live() -> dict[str, str]:
        return {"object": "health.response", "message": "Service is live.", "status": "live"}

    @app.get(READY_PATH, summary="Requests are answered.")
    async def ready() -> dict[str, str]:
        return {"object": "health.response", "message": "Service is ready.", "status": "ready"}

    @app.get(INFO, summary="Model and limits, as Text Embeddings Inference tells them.")
    async def tei_info() -> dict[str, Any]:
        return info(artifact.contract, name, artifact.metadata.get("dtype"), limits)

    @app.get(HEALTH, summary="Requests are answered (Text Embeddings Inference).")
    async def tei_health() -> Response:
        return Response()

    @app.get(METRICS, summary="Prometheus metrics.")
    async def metrics() -> Response:
        return Response(generate_latest(telemetry.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def describe(family: ServedFamily, artifact: Artifact, name: str) -> dict[str, Any]:
    """The served model's identity: enough to tell whether it is the one that was evaluated."""
    contract = artifact.contract
    return {
        "version": version("pipeline"),
        "family": family.name,
        "modelInfo": [{"shortName": name, "modelUrl": ""}],
        "contract_digest": contract.digest(),
        "model_sha256": artifact.model_sha256,
        "dtype": artifact.metadata.get("dtype"),
        "base_model": contract.base_model,
        **family.contract_facts(contract),
    }


def _offer(app: FastAPI, route: Route, serving: Serving) -> None:
    """Add one of the family's routes. Its body is read by us: what a client calls its type must not matter."""
    schema = {"application/json": {"schema": route.body.model_json_schema()}}
    about = {"requestBody": {"required": True, "content": schema}}

    @app.post(route.path, summary=route.summary, openapi_extra=about)
    async def answer(http: Request) -> Response:
        return await route.answer(await read_request(http, route.body), serving)


def _shape_errors(app: FastAPI, family: ServedFamily) -> None:
    """Every refusal in OpenAI's shape, also those of the framework."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return error_reply(error.status, error.message, error.code, error.param)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        hint = f"; {family.offer}" if error.status_code == 404 else ""
        return error_reply(error.status_code, f"{request.method} {request.url.path}: {error.detail}{hint}")

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        logging.getLogger("pipeline").exception("the request failed", exc_info=error)
        return error_reply(500, "the server failed; its log says why")

"""How an endpoint is told to answer in JSON: by its own schema support, its JSON mode, or by the prompt alone."""

from __future__ import annotations

import json
from typing import Any

from pipeline_sdg.endpoints import Endpoint

SCHEMA, JSON_MODE, PROMPT = "json_schema", "json_object", "prompt"
FORMATS = (SCHEMA, JSON_MODE, PROMPT)
"""Tried in this order by the first call to a model."""

Message = dict[str, str]
Schema = dict[str, Any]


def with_format(body: dict[str, Any], form: str, endpoint: Endpoint, schema: Schema) -> dict[str, Any]:
    """The request with what makes the answer JSON."""
    if form == SCHEMA:
        strict = strict_schema(schema) if endpoint.provider == "openai" else schema
        response_format = {"name": endpoint.role, "schema": strict, "strict": True}
        return {**body, "response_format": {"type": "json_schema", "json_schema": response_format}}
    told = {**body, "messages": _with_schema(body["messages"], schema)}
    return {**told, "response_format": {"type": "json_object"}} if form == JSON_MODE else told


def strict_schema(schema: Schema) -> Schema:
    """Without the keywords that OpenAI's strict mode refuses; we check what they said anyway."""
    refused = {"minLength", "maxLength", "pattern"}
    return {
        name: strict_schema(value) if isinstance(value, dict) else value
        for name, value in schema.items()
        if name not in refused
    }


def _with_schema(messages: list[Message], schema: Schema) -> list[Message]:
    told = "\n\nAnswer with JSON alone, in one ```json block, that follows this JSON Schema:\n"
    last = messages[-1]
    return [*messages[:-1], {**last, "content": last["content"] + told + json.dumps(schema)}]

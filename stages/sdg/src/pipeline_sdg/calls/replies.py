"""What an endpoint answered, as replies."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from pipeline_sdg.calls.errors import Again
from pipeline_sdg.calls.usage import estimated_tokens
from pipeline_sdg.endpoints import Endpoint
from pipeline_sdg.journal import Reply


def chat_reply(endpoint: Endpoint, request: dict[str, Any], answer: Any) -> Reply:
    """The first choice. Tokens that the endpoint does not report are estimated.

    Raises:
        Again: it is no chat completion.
    """
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] or ""
        finish = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Again(f"{endpoint.base_url} answered something that is no chat completion") from error
    if not isinstance(text, str):
        raise Again(f"{endpoint.base_url} answered with {type(text).__name__} instead of text")
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair can be written nowhere
    used = answer.get("usage")
    asked = sum(len(message["content"]) for message in request["messages"])
    read = _tokens(used, "prompt_tokens", asked)
    return Reply(text, finish if isinstance(finish, str) else None, read, _tokens(used, "completion_tokens", len(text)))


def vector_replies(keys: list[str], answer: Any) -> dict[str, Reply]:
    """One reply for each key, in order; the vector as float32 in base64.

    Raises:
        Again: not one vector of finite numbers for each key.
    """
    try:
        rows = sorted(answer["data"], key=lambda item: item["index"])
        vectors = [np.asarray(row["embedding"], dtype="<f4") for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise Again("the answer holds no vectors") from error
    if len(vectors) != len(keys):
        raise Again(f"{len(keys)} texts gave {len(vectors)} vectors")
    if not all(vector.ndim == 1 and vector.size and np.isfinite(vector).all() for vector in vectors):
        raise Again("a vector is empty or holds something that is no number")
    tokens = _tokens(answer.get("usage"), "prompt_tokens", 0)
    return {  # one bill for the batch
        key: Reply(base64.b64encode(vector.tobytes()).decode(), None, tokens if number == 0 else 0, 0)
        for number, (key, vector) in enumerate(zip(keys, vectors, strict=True))
    }


def _tokens(used: Any, name: str, characters: int) -> int:
    found = used.get(name) if isinstance(used, dict) else None
    if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
        return found
    return estimated_tokens(characters)

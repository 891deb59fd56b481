"""What the routes of the service share: reading a body, refusing it, and the shape of an error."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

MOST_BODY_BYTES = 64 * 2**20
Body = TypeVar("Body", bound=BaseModel)


class ApiError(Exception):
    """A refusal in OpenAI's shape."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


def wrong_model(asked: str, served: str) -> ApiError:
    """The refusal of a request for another model."""
    return ApiError(404, f"the model {asked!r} is not served here, {served!r} is", "model_not_found", "model")


def json_reply(body: Any, status: int = 200) -> Response:
    """JSON of plain values and numpy numbers; an fp32 number has as many digits as it needs."""
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type="application/json")


def error_reply(status: int, message: str, code: str | None = None, param: str | None = None) -> Response:
    """OpenAI's error body."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return json_reply({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


async def read_request(http: Request, form: type[Body]) -> Body:
    """Parse a body as JSON whatever type it claims to be: `curl -d` says that it is a form.

    Raises:
        ApiError: the body is too large, not JSON, or not such a request; the message names every wrong field.
    """
    body = bytearray()
    async for part in http.stream():
        body += part
        if len(body) > MOST_BODY_BYTES:
            raise ApiError(413, f"the body is larger than {MOST_BODY_BYTES >> 20} MiB")
    try:
        return form.model_validate_json(bytes(body))
    except ValidationError as error:
        text, param = _findings(error)
        raise ApiError(400, text, param=param) from error


def not_empty(value: Any) -> Any:
    """`value`, unless it is "" or []; for use as a pydantic validator."""
    if not value:
        raise ValueError(f"must not be an empty {'list' if isinstance(value, list) else 'text'}")
    return value


def _findings(error: ValidationError) -> tuple[str, str | None]:
    """pydantic's findings as one sentence, and the first field they are about."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        name, *inside = item["loc"] or ("body",)
        place = f"{name}[{inside[0]}]" if inside and isinstance(inside[0], int) else str(name)
        problem = item["msg"].removeprefix("Value error, ")
        found.setdefault(str(name), f"{place}: {problem[:1].lower()}{problem[1:]}")
    param = next(iter(found))
    return "; ".join(found.values()), None if param == "body" else param

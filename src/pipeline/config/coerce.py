"""Turn a raw value (from YAML or from `key=value`) into the type its key declares."""

from __future__ import annotations

import typing
from typing import Any, Literal

from pipeline.schemas.fields import Key, type_name, union_parts

_TRUE, _FALSE, _NULL = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}, {"null", "none", "~"}


class NotThisType(ValueError):
    """The value cannot be read as the declared type; the text says what would do."""


def coerce(key: Key, raw: Any) -> Any:
    """Return `raw` as the key's type. A string key takes strings verbatim; numbers may be written as text.

    Raises:
        NotThisType: with the expected type, choices or range.
    """
    parts = union_parts(key.type)
    if type(None) in parts and (raw is None or (isinstance(raw, str) and raw.strip().lower() in _NULL)):
        return None
    last: NotThisType | None = None
    for part in parts:
        if part is type(None):
            continue
        try:
            value = _as(part, raw)
        except NotThisType as error:
            last = error
            continue
        _check_range(key, value)
        return value
    raise last or NotThisType(f"must be {key.type_name}")


def _check_range(key: Key, value: Any) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not key.spec.allows(value):
        raise NotThisType(f"must be {key.spec.range_text}")


def _as(hint: Any, raw: Any) -> Any:
    if hint is Any:
        return raw
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _choice(typing.get_args(hint), raw)
    if origin is list:
        return [_as(typing.get_args(hint)[0], item) for item in _container(raw, list, hint)]
    if origin is dict:
        item_type = typing.get_args(hint)[1]
        return {str(name): _as(item_type, item) for name, item in _container(raw, dict, hint).items()}
    return _SCALARS[hint](raw)


def _choice(choices: tuple[Any, ...], raw: Any) -> Any:
    # YAML 1.1 reads a bare `no` or `yes` as a truth value; where only words are allowed the word was meant.
    words = {True: "yes", False: "no", None: "none"}
    for choice in choices:
        if raw == choice or str(raw) == str(choice):
            return choice
        if (raw is None or isinstance(raw, bool)) and words[raw] == choice:
            return choice
    raise NotThisType(f"must be one of {', '.join(str(choice) for choice in choices)}")


def _container(raw: Any, kind: type, hint: Any) -> Any:
    if isinstance(raw, str):
        import yaml

        try:
            raw = yaml.safe_load(raw)
        except yaml.YAMLError:
            raw = None
    if not isinstance(raw, kind):
        example = "[1,5,10]" if kind is list else "{name: 1}"
        raise NotThisType(f"must be {type_name(hint)}, written like {example}")
    return raw


def _string(raw: Any) -> str:
    if isinstance(raw, str):
        return raw
    if isinstance(raw, bool) or raw is None or isinstance(raw, (list, dict)):
        raise NotThisType('must be text (put it in quotes in YAML: "...")')
    return str(raw)


def _integer(raw: Any) -> int:
    if isinstance(raw, bool):
        raise NotThisType("must be a whole number")
    try:
        number = int(raw) if isinstance(raw, (int, str)) else float(raw)
    except (TypeError, ValueError, OverflowError):
        raise NotThisType("must be a whole number") from None
    if number != int(number):
        raise NotThisType("must be a whole number")
    return int(number)


def _float(raw: Any) -> float:
    if isinstance(raw, bool):
        raise NotThisType("must be a number")
    try:
        number = float(raw)
    except (TypeError, ValueError):
        raise NotThisType("must be a number") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise NotThisType("must be a finite number")
    return number


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise NotThisType("must be true or false")


_SCALARS = {str: _string, int: _integer, float: _float, bool: _boolean}

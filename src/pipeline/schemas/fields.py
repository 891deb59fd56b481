"""How a configuration key is declared: type, default, allowed range and meaning stand in one place.

A stage's dataclass is the schema: the loader, the errors, `--help`, the manifest and the tests all read it.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal


@dataclass(frozen=True)
class KeySpec:
    """What is known of one key beyond its Python type."""

    meaning: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    affects_output: bool = True
    """False for keys that change speed, logs or network use alone: changing them makes nothing stale."""
    reads: str | None = None
    """Set for an input path: the stage that makes it, or "user" when a person provides it."""
    or_name: bool = False
    """An input that may also be the name of something shipped: what has no slash is no path."""
    optional_input: bool = False
    """An input that may be absent (its absence is noted, never an error of the plan)."""
    aliases: tuple[str, ...] = ()
    """Other names under which a configuration may say this key (a documented older name)."""
    secret_env: str | None = None
    """Set for a secret: it is handed to the stage in this environment variable and never written anywhere."""

    @property
    def range_text(self) -> str:
        parts = [f"{sign} {_number(bound)}" for sign, bound in self._bounds()]
        return " and ".join(parts)

    def allows(self, value: float) -> bool:
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def _bounds(self) -> list[tuple[str, float]]:
        bounds = ((">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt))
        return [(sign, bound) for sign, bound in bounds if bound is not None]


def key(default: Any, meaning: str, **spec: Any) -> Any:
    """Declare one configuration key. `spec` holds the fields of `KeySpec`."""
    metadata = {"spec": KeySpec(meaning, **spec)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Key:
    """A key as the loader and `--help` see it."""

    name: str
    type: Any
    default: Any
    spec: KeySpec

    @property
    def type_name(self) -> str:
        return type_name(self.type)

    @property
    def choices(self) -> tuple[Any, ...] | None:
        """The allowed values of a `Literal`, else None."""
        for part in union_parts(self.type):
            if typing.get_origin(part) is Literal:
                return typing.get_args(part)
        return None

    @property
    def allowed_text(self) -> str:
        if self.choices:
            return " | ".join(str(choice) for choice in self.choices)
        return self.spec.range_text


@cache
def keys_of(schema: type) -> dict[str, Key]:
    """Every key of a stage's dataclass, in order."""
    hints = typing.get_type_hints(schema)
    found = {}
    for item in dataclasses.fields(schema):
        default = item.default if item.default is not dataclasses.MISSING else item.default_factory()
        found[item.name] = Key(item.name, hints[item.name], default, item.metadata["spec"])
    return found


def canonical(schema: type, name: str) -> str:
    """The key that `name` or one of its aliases stands for; an unknown name is returned as it is."""
    return next((item.name for item in keys_of(schema).values() if name in item.spec.aliases), name)


def union_parts(hint: Any) -> tuple[Any, ...]:
    """`int | None` -> (int, NoneType); a plain type -> (itself,)."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def type_name(hint: Any) -> str:
    names = []
    for part in union_parts(hint):
        if part is type(None):
            names.append("null")
        elif typing.get_origin(part) is Literal:
            names.append(type(typing.get_args(part)[0]).__name__)
        elif typing.get_origin(part):
            inner = ", ".join(type_name(argument) for argument in typing.get_args(part))
            names.append(f"{typing.get_origin(part).__name__}[{inner}]")
        else:
            names.append(part.__name__)
    return " | ".join(names)


def _number(value: float) -> str:
    return f"{value:g}"

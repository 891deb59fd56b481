"""`run`: which override goes to which stage."""

from __future__ import annotations

import difflib

from pipeline.config import resolve, split_override
from pipeline.errors import PipelineError
from pipeline.family import STAGES, Family
from pipeline.schemas import schema_of
from pipeline.schemas.fields import canonical, keys_of


def distribute(family: Family, profile: str, overrides: list[str], stages: list[str]) -> dict[str, list[str]]:
    """`STAGE.key=value` goes to that stage; a bare key to every stage that has it.

    Raises:
        PipelineError: no stage has the key, or the stages that have it differ in its default, so that one value for
            all of them is likely not what was meant.
    """
    given: dict[str, list[str]] = {stage: [] for stage in stages}
    for text in overrides:
        name, value = split_override(text)
        stage, _, inner = name.partition(".")
        if stage in STAGES and inner:
            if stage in given:
                given[stage].append(f"{inner}={value}")
            continue
        for owner in _owners(family, profile, name):
            if owner in given:
                given[owner].append(text)
    return given


def _owners(family: Family, profile: str, name: str) -> list[str]:
    said = name.split(".")[0]
    schemas = {stage: schema_of(family.name, stage) for stage in STAGES}
    key = next((found for schema in schemas.values() if (found := canonical(schema, said)) != said), said)
    owners = [stage for stage, schema in schemas.items() if key in keys_of(schema)]
    if not owners:
        everything = {item for schema in schemas.values() for item in keys_of(schema)}
        near = difflib.get_close_matches(key, everything, 1)
        raise PipelineError(f"{name}: no stage has this key", fix=f"did you mean {near[0]}?" if near else None)
    defaults = {stage: getattr(resolve(family.name, stage, profile).config, key) for stage in owners}
    if len({repr(value) for value in defaults.values()}) > 1:
        shown = ", ".join(f"{stage} {value!r}" for stage, value in defaults.items())
        raise PipelineError(
            f"{name}: several stages have this key, with different defaults ({shown})",
            fix=f"say which one you mean: {owners[0]}.{name}=…",
        )
    return owners

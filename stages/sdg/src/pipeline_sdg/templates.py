"""The prompts: plain files beside this module, filled in by name."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template


@cache
def _template(name: str) -> Template:
    return Template(files("pipeline_sdg").joinpath("prompts", "default", f"{name}.txt").read_text(encoding="utf-8"))


def render(name: str, **values: object) -> str:
    """Fill in prompts/NAME.txt; a placeholder without a value is a KeyError, not a hole in the prompt."""
    return _template(name).substitute({key: str(value) for key, value in values.items()}).strip()

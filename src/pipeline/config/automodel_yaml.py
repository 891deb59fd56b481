"""Write a converted configuration: every key with its origin, and what was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.automodel import Conversion
from pipeline.schemas import schema_of
from pipeline.schemas.fields import keys_of

_WIDTH = 60


def to_yaml(conversion: Conversion) -> str:
    """The new file: our keys in the schema's order, each with its origin, then what was lost, as comments."""
    order = [key for key in keys_of(schema_of(conversion.family, "finetune")) if key in conversion.converted]
    lines = [f"{key}: {value_text(conversion.converted[key].value)}" for key in order]
    width = min(_WIDTH, max(len(line) for line in lines))
    out = [
        f"# {conversion.family} finetune, converted from {Path(conversion.source).name} of NVIDIA AutoModel.",
        "extends: default",
    ]
    out += [f"{line:<{width}}  # {conversion.converted[key].origin}" for key, line in zip(order, lines, strict=True)]
    if conversion.lost:
        out += ["", "# Not converted:"]
        out += [f"#   {item.key}: {value_text(item.value)} ({item.reason})" for item in conversion.lost]
    return "\n".join(out) + "\n"


def value_text(value: Any) -> str:
    """A value as YAML on one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()

"""A benchmark of several parts: what each found, how it is told, and when the whole is an error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rows import markdown, show

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Target:
    """A measured value and what is wanted of it: at least `wanted`, or at most if `at_most`."""

    name: str
    value: float
    wanted: float
    at_most: bool = False

    def line(self) -> dict[str, object]:
        """One row of the table of targets."""
        met = self.value <= self.wanted if self.at_most else self.value >= self.wanted
        sign = "<=" if self.at_most else ">="
        return {
            "target": self.name,
            "measured": f"{self.value:.3g}",
            "wanted": f"{sign} {self.wanted:g}",
            "met": "yes" if met else "no",
        }


@dataclass(frozen=True)
class Part:
    """Rows of the table, facts beside it, targets, and what is wrong (results that should agree and do not)."""

    title: str
    rows: list[dict[str, object]]
    facts: dict[str, object]
    targets: list[Target]
    wrong: list[str]


def run_parts(names: list[str], measure: Callable[[str], Part], facts: dict[str, object], output: Path | None) -> None:
    """Measure and tell each part, then the targets of all. `facts` go into the JSON of every part.

    Raises:
        PipelineError: something is wrong.
    """
    parts = []
    for name in dict.fromkeys(names):
        print(f"{name} …", file=sys.stderr, flush=True)
        part = measure(name)
        parts.append(part)
        told = {**facts, **part.facts, "targets": [item.line() for item in part.targets], "wrong": part.wrong}
        show(part.title, part.rows, told, output.with_stem(f"{output.stem}-{name}") if output else None)
    if targets := [item.line() for part in parts for item in part.targets]:
        print(f"\n## Targets\n\n{markdown(targets)}")
    if wrong := [item for part in parts for item in part.wrong]:
        raise PipelineError("; ".join(wrong))

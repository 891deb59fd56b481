"""What one part of mining.py found."""

from __future__ import annotations

from dataclasses import dataclass


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

"""What became of every question: how many were left after each step, and why the others were lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Step:
    """One step of the funnel: how many questions were left, why others were lost, and what else is worth a word."""

    name: str
    left: int
    lost: dict[str, int]
    note: str = ""

    def __str__(self) -> str:
        lost = ", ".join(f"{reason} {count:,}" for reason, count in self.lost.items())
        parts = [f"{self.name:<11}{self.left:>8,}", f"lost: {lost}" if lost else "", self.note]
        return "   ".join(part for part in parts if part)


@dataclass
class Funnel:
    """Collects losses; `close` ends a step. Every lost question has a line in `rejected`, ready for rejected.jsonl."""

    steps: list[Step] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    _open: Counter[str] = field(default_factory=Counter)

    def reject(self, reason: str, where: str, question: Any, detail: str = "") -> None:
        self._open[reason] += 1
        self.rejected.append({"reason": reason, "where": where, "question": str(question), "detail": detail})

    def close(self, name: str, left: int, note: str = "") -> None:
        self.steps.append(Step(name, left, dict(self._open.most_common()), note))
        self._open.clear()

    def to_json(self) -> list[dict[str, Any]]:
        return [{"step": step.name, "left": step.left, "lost": step.lost, "note": step.note} for step in self.steps]

    @property
    def headline(self) -> str:
        """`739 read → 700 judged → …`."""
        return " → ".join(f"{step.left:,} {step.name}" for step in self.steps)

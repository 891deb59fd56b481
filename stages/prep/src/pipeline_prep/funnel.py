"""What became of every question: how many were left after each step, and why the others were lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_EXAMPLE = 60
_SHOWN = 1000
"""Characters of a question that rejected.jsonl keeps: a question may be a broken line of megabytes."""


class Loss(NamedTuple):
    """A row of the funnel table; a step that lost nothing has one row with `lost` 0 and no reason."""

    step: str
    left: int
    lost: int
    reason: str
    example: str


@dataclass
class Step:
    """One step of the funnel: how many questions were left, why others were lost, and what else is worth a word."""

    name: str
    left: int
    lost: dict[str, int]
    note: str = ""


@dataclass
class Funnel:
    """Collects losses; `close` ends a step. Every lost question has a line in `rejected`, ready for rejected.jsonl.

    A line has the keys reason, step, where, question and detail.
    """

    steps: list[Step] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    _open: list[dict[str, Any]] = field(default_factory=list)

    def reject(self, reason: str, where: str, question: Any, detail: str = "", step: str | None = None) -> None:
        """Note a loss in the step that is closed next, or in `step`, which is closed later."""
        line = {
            "reason": reason,
            "step": step,
            "where": where,
            "question": _writable(question),
            "detail": _writable(detail),
        }
        self._open.append(line)
        self.rejected.append(line)

    def close(self, name: str, left: int, note: str = "") -> None:
        """End a step with `left` questions; the losses noted for it, or for no step, are its losses."""
        mine = [line for line in self._open if line["step"] in (None, name)]
        self._open = [line for line in self._open if line["step"] not in (None, name)]
        for line in mine:
            line["step"] = name
        self.steps.append(Step(name, left, dict(Counter(line["reason"] for line in mine).most_common()), note))

    def table(self) -> list[Loss]:
        """For each step and reason how many were lost and the first lost question, in the order of the steps."""
        example: dict[tuple[str, str], str] = {}
        for line in self.rejected:
            if line["question"].strip():
                example.setdefault((line["step"], line["reason"]), line["question"])
        return [
            Loss(step.name, step.left, count, reason, example.get((step.name, reason), ""))
            for step in self.steps
            for reason, count in (step.lost or {"": 0}).items()
        ]

    def lines(self) -> list[str]:
        """The table for a log: a line for each step, and under it one for each reason with an example."""
        rows = {step.name: [f"{step.name:<11}{step.left:>8,}   {step.note}".rstrip()] for step in self.steps}
        for loss in self.table():
            if loss.lost:
                example = f"   e.g. {loss.example[:_EXAMPLE]!r}" if loss.example else ""
                rows[loss.step].append(f"{'':<11}{-loss.lost:>8,}   {loss.reason}{example}")
        return [line for step in rows.values() for line in step]

    def to_json(self) -> list[dict[str, Any]]:
        return [{"step": step.name, "left": step.left, "lost": step.lost, "note": step.note} for step in self.steps]

    @property
    def headline(self) -> str:
        """`739 read → 700 judged → …`."""
        return " → ".join(f"{step.left:,} {step.name}" for step in self.steps)


def _writable(value: Any) -> str:
    """Short, and without halves of surrogate pairs, which no UTF-8 file can hold."""
    return str(value)[:_SHOWN].encode("utf-8", "backslashreplace").decode("utf-8")

"""The judge's scores of one record, matched to its question–answer pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Judgement:
    """`score` 0..10, or None for an unjudged pair that is kept; `problem` says why the pair cannot be used."""

    score: float | None = None
    problem: str | None = None
    detail: str = ""


def judgements(record: dict[str, Any], pairs: int, threshold: float) -> list[Judgement]:
    """One judgement for each of the record's `pairs`, in their order.

    Judgements carry no id: they belong to pairs by position. A judge that stopped early leaves the last pairs without
    one, and only these are lost. With more judgements than pairs nothing says which belongs where: all are lost.
    """
    held = record.get("qa_evaluations")
    items = held.get("evaluations") if isinstance(held, dict) else held
    if items is None:
        return [Judgement()] * pairs
    if not isinstance(items, list) or len(items) > pairs:
        found = len(items) if isinstance(items, list) else type(items).__name__
        return [Judgement(problem="judgements do not match", detail=f"{found} judgements, {pairs} pairs")] * pairs
    short = Judgement(problem="not judged", detail=f"{len(items)} judgements, {pairs} pairs")
    return [_one(item, threshold) for item in items] + [short] * (pairs - len(items))


def _one(item: Any, threshold: float) -> Judgement:
    overall = item.get("overall") if isinstance(item, dict) else None
    if not isinstance(overall, dict) or "score" not in overall:
        return Judgement(problem="judgement unreadable", detail=f"no overall.score in {str(item)[:80]}")
    score = overall["score"]
    if score is None:
        return Judgement()
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
        return Judgement(problem="judgement unreadable", detail=f"overall.score is {score!r}")
    if score < threshold:
        return Judgement(problem="below quality_threshold", detail=f"{score:g} < {threshold:g}")
    return Judgement(score=float(score))

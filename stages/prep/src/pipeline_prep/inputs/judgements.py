"""The judge's scores of one record, matched to its question–answer pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Judgement:
    """`score` 0..10, or None for an unjudged pair that is kept; `problem` says why the pair cannot be used.

    `criteria` holds the scores of single criteria, such as accuracy.
    """

    score: float | None = None
    problem: str | None = None
    detail: str = ""
    criteria: dict[str, float] = field(default_factory=dict)


def judgements(
    held: Any, pairs: int, threshold: float, minimums: Mapping[str, float], drop_unanswerable: bool = True
) -> list[Judgement]:
    """One judgement for each of a record's `pairs`, in their order.

    Judgements carry no id: they belong to pairs by position. A judge that stopped early leaves the last pairs without
    one, and only these are lost. With more judgements than pairs nothing says which belongs where: all are lost.

    Args:
        held: the record's `qa_evaluations`: a list, an object with the list `evaluations`, or None (nothing judged).
        threshold: lowest overall score.
        minimums: criterion -> lowest score; a criterion without a score passes.
        drop_unanswerable: whether a pair whose passages do not carry its answer (`answerable` false) is lost.
    """
    items = held.get("evaluations") if isinstance(held, dict) else held
    if items is None:
        return [Judgement()] * pairs
    if not isinstance(items, list) or len(items) > pairs:
        found = len(items) if isinstance(items, list) else type(items).__name__
        return [Judgement(problem="judgements do not match", detail=f"{found} judgements, {pairs} pairs")] * pairs
    short = Judgement(problem="not judged", detail=f"{len(items)} judgements, {pairs} pairs")
    found = [_one(item, threshold, minimums, drop_unanswerable) for item in items]
    return found + [short] * (pairs - len(items))


def _one(item: Any, threshold: float, minimums: Mapping[str, float], drop_unanswerable: bool) -> Judgement:
    overall = item.get("overall") if isinstance(item, dict) else None
    if not isinstance(overall, dict) or "score" not in overall:
        return Judgement(problem="judgement unreadable", detail="no overall.score")
    scores: dict[str, float] = {}
    for name, value in item.items():
        score = value.get("score") if isinstance(value, dict) else None
        if score is None:
            continue
        # Without the bound a whole number of JSON may be too large for a float.
        if isinstance(score, (int, float)) and not isinstance(score, bool) and abs(score) < 1e9:
            scores[str(name)] = float(score)
        elif name == "overall" or name in minimums:
            return Judgement(problem="judgement unreadable", detail=f"{name}.score is {_shown(score)}")
    total = scores.get("overall")
    criteria = {name: score for name, score in scores.items() if name != "overall"}
    if total is not None and total < threshold:
        return Judgement(problem="below quality_threshold", detail=f"{total:g} < {threshold:g}")
    low = [
        f"{name} {scores[name]:g} < {least:g}" for name, least in minimums.items() if scores.get(name, math.inf) < least
    ]
    if low:
        return Judgement(problem="below criterion_minimums", detail=", ".join(low))
    if drop_unanswerable and item.get("answerable") is False:
        return Judgement(problem="not answerable", detail="its passages do not carry the answer")
    return Judgement(total, criteria=criteria)


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, (str, bool, float)) else f"of type {type(value).__name__}"

"""Scores for one pair, from a model that sees the cited passages alone."""

from __future__ import annotations

from typing import Any

from pipeline_sdg.chunking import Chunk
from pipeline_sdg.endpoints import JUDGE
from pipeline_sdg.exchange import Exchange, Fault
from pipeline_sdg.llm import Schema
from pipeline_sdg.pairs import Pair
from pipeline_sdg.parsing import parse_object
from pipeline_sdg.templates import render

CRITERIA = ("relevance", "accuracy", "context_support", "clarity")
LOWEST, HIGHEST = 1, 10

Evaluation = dict[str, Any]


def unjudged(reason: str) -> Evaluation:
    """An evaluation without score; `prep` keeps such pairs and counts them."""
    none = {name: {"score": None, "justification": ""} for name in CRITERIA}
    return {**none, "overall": {"score": None, "assessment": f"unjudged: {reason}"}, "improvements": ""}


def exchange(pair: Pair, chunks: list[Chunk]) -> Exchange:
    """The request for one pair's evaluation."""
    cited = set(pair["segment_ids"])
    passages = "\n\n".join(f"[{chunk['chunk_id']}] {chunk['text']}" for chunk in chunks if chunk["chunk_id"] in cited)
    prompt = render("judge", passages=passages, question=pair["question"], answer=pair["answer"])
    return Exchange(JUDGE, [{"role": "user", "content": prompt}], schema(), check, wanted=1)


def schema() -> Schema:
    score = {"type": "integer", "minimum": LOWEST, "maximum": HIGHEST}
    criterion = _object({"score": score, "justification": {"type": "string"}})
    overall = _object(
        {
            "score": {"type": "number", "minimum": LOWEST, "maximum": HIGHEST},
            "assessment": {"type": "string"},
        }
    )
    return _object({**dict.fromkeys(CRITERIA, criterion), "overall": overall, "improvements": {"type": "string"}})


def check(reply: str) -> tuple[list[Evaluation], list[Fault]]:
    """The evaluation as a list of one, or what is wrong with it."""
    value = parse_object(reply)
    if value is None:
        return [], [Fault("the answer is not one whole JSON object")]
    faults = []
    evaluation: Evaluation = {}
    for name in (*CRITERIA, "overall"):
        part = value.get(name)
        score = _score(part.get("score") if isinstance(part, dict) else part)
        if score is None or (name != "overall" and score != int(score)):
            faults.append(Fault(f"{name}.score must be a number from {LOWEST} to {HIGHEST}"))
            continue
        words = "assessment" if name == "overall" else "justification"
        said = str(part.get(words) or "") if isinstance(part, dict) else ""
        evaluation[name] = {"score": float(score) if name == "overall" else int(score), words: said}
    evaluation["improvements"] = str(value.get("improvements") or "")
    return ([], faults) if faults else ([evaluation], [])


def _score(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if LOWEST <= value <= HIGHEST else None


def _object(properties: dict[str, Any]) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }

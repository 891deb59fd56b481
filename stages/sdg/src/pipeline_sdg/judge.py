"""Scores for one pair, from a model that sees the cited passages and, set apart, what stands beside them.

The rubric says what a score means; the reason is written before the score, which then follows from it (Liu et al.
2023, https://arxiv.org/abs/2303.16634).
"""

from __future__ import annotations

from typing import Any

from pipeline_sdg.chunking import Chunk
from pipeline_sdg.endpoints import JUDGE
from pipeline_sdg.exchange import Exchange, Fault
from pipeline_sdg.forms import TEXT, object_of, one_line
from pipeline_sdg.pairs import Pair
from pipeline_sdg.parsing import parse_object
from pipeline_sdg.templates import DEFAULT, Prompts

CRITERIA = ("relevance", "accuracy", "context_support", "clarity")
LOWEST, HIGHEST = 1, 10
LEEWAY = 1
"""Points that `overall` may lie above accuracy and context_support: a wrong answer is no good pair, however clear."""
_DECISIVE = ("accuracy", "context_support")

Evaluation = dict[str, Any]


def unjudged(reason: str) -> Evaluation:
    """An evaluation without score; `prep` keeps such pairs and counts them."""
    none = {name: {"score": None, "justification": ""} for name in CRITERIA}
    return {**none, "overall": {"score": None, "assessment": f"unjudged: {reason}"}, "improvements": ""}


def exchange(pair: Pair, chunks: list[Chunk], prompts: Prompts = DEFAULT) -> Exchange:
    """The request for one pair's evaluation."""
    beside = neighbours(pair, chunks)
    prompt = prompts.render(
        "judge",
        passages=shown(cited(pair, chunks)),
        neighbours=f"\nNEIGHBOURS (not cited)\n{shown(beside)}\n" if beside else "",
        question=pair["question"],
        answer=pair["answer"],
    )
    return Exchange(JUDGE, [{"role": "user", "content": prompt}], schema(), check, wanted=1)


def cited(pair: Pair, chunks: list[Chunk]) -> list[Chunk]:
    """The chunks a pair names, in their order."""
    wanted = set(pair["segment_ids"])
    return [chunk for chunk in chunks if chunk["chunk_id"] in wanted]


def neighbours(pair: Pair, chunks: list[Chunk]) -> list[Chunk]:
    """The chunks right before and after the cited ones, of the same document, that are not cited themselves."""
    wanted = set(pair["segment_ids"])
    found = []
    for chunk in (chunk for chunk in chunks if chunk["chunk_id"] not in wanted):
        near = {chunk["chunk_id"] - 1, chunk["chunk_id"] + 1} & wanted
        same = (other for other in chunks if other["chunk_id"] in near and other.get("doc_id") == chunk.get("doc_id"))
        if any(same):
            found.append(chunk)
    return found


def shown(chunks: list[Chunk]) -> str:
    """Chunks as a prompt shows them: the number, the title, then the text."""
    return "\n\n".join(f"[{chunk['chunk_id']}] {with_title(chunk)}" for chunk in chunks)


def with_title(chunk: Chunk) -> str:
    """The text under its title (the path of headings), as a search index has it."""
    return f"{chunk['title']}\n{chunk['text']}" if chunk.get("title") else chunk["text"]


def schema() -> dict[str, Any]:
    score = {"type": "integer", "minimum": LOWEST, "maximum": HIGHEST}
    criterion = object_of({"justification": TEXT, "score": score})
    overall = object_of({"assessment": TEXT, "score": {**score, "type": "number"}})
    return object_of({**dict.fromkeys(CRITERIA, criterion), "overall": overall, "improvements": TEXT})


def check(reply: str) -> tuple[list[Evaluation], list[Fault]]:
    """The evaluation as a list of one, or what is wrong with it.

    A score that is missing or out of range is a fault, never guessed. `overall` is held to LEEWAY points above the
    lower one of accuracy and context_support: prep filters by it alone.
    """
    value = parse_object(reply)
    if value is None:
        return [], [Fault("the answer is not one whole JSON object")]
    faults = []
    evaluation: Evaluation = {}
    for name in (*CRITERIA, "overall"):
        part = value.get(name)
        part = part if isinstance(part, dict) else {"score": part}
        score = _score(part.get("score"), whole=name != "overall")
        if score is None:
            faults.append(Fault(f"{name}.score must be a number from {LOWEST} to {HIGHEST}"))
            continue
        words = "assessment" if name == "overall" else "justification"
        evaluation[name] = {"score": score, words: one_line(part.get(words))}
    if faults:
        return [], faults
    highest = float(min(evaluation[name]["score"] for name in _DECISIVE) + LEEWAY)
    evaluation["overall"]["score"] = min(evaluation["overall"]["score"], highest)
    evaluation["improvements"] = one_line(value.get("improvements"))
    return [evaluation], []


def _score(value: Any, whole: bool) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not LOWEST <= value <= HIGHEST:
        return None
    if whole:
        return int(value) if value == int(value) else None
    return float(value)

"""Question–answer pairs with types, difficulty and hops (`qa_format: full`): the request and the checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline_sdg.artifacts import Artifacts, as_notes
from pipeline_sdg.chunking import Window, sections
from pipeline_sdg.endpoints import QA
from pipeline_sdg.exchange import Exchange, Fault
from pipeline_sdg.llm import Schema
from pipeline_sdg.parsing import list_in_reply
from pipeline_sdg.quotas import largest_remainder, without
from pipeline_sdg.templates import render
from pipeline_sdg.wording import ends_sensibly, problem_of, words

Pair = dict[str, Any]
HARDEST = 5


@dataclass(frozen=True)
class PairRules:
    """What is asked for, and therefore checked. The counts are shares; they are rescaled to `num_pairs`."""

    num_pairs: int
    query_counts: Mapping[str, int]
    reasoning_counts: Mapping[str, int]
    min_hops: int = 1
    max_hops: int = 3
    min_complexity: int = 2
    num_sections: int = 1

    def query_quota(self, segments: int) -> dict[str, int]:
        """How many pairs of each query type; nothing can connect several segments where there are too few."""
        possible = self.query_counts if segments >= max(2, self.min_hops) else without(self.query_counts, "multi_hop")
        return largest_remainder(possible, self.num_pairs)

    def reasoning_quota(self) -> dict[str, int]:
        """How many pairs of each reasoning type; text has nothing to see, so `visual` gives its share to the others."""
        return largest_remainder(without(self.reasoning_counts, "visual"), self.num_pairs)


def exchange(window: Window, rules: PairRules, artifacts: Artifacts) -> Exchange:
    """The request for the pairs of one window."""
    query_quota = rules.query_quota(len(window.chunks))
    prompt = render(
        "qa",
        title=window.title,
        sections="\n".join(sections(window.chunks, rules.num_sections)),
        notes=as_notes(artifacts),
        num_pairs=rules.num_pairs,
        query_quota=_quota_lines(query_quota),
        reasoning_quota=_quota_lines(rules.reasoning_quota()),
        min_hops=rules.min_hops,
        max_hops=_max_hops(window, rules),
        min_complexity=rules.min_complexity,
    )
    return Exchange(
        QA,
        [{"role": "user", "content": prompt}],
        schema(window, rules),
        lambda reply: check(reply, window, rules),
        wanted=rules.num_pairs,
        same=lambda pair: tuple(words(pair["question"])),
    )


def schema(window: Window, rules: PairRules) -> Schema:
    segment_ids = {"type": "array", "minItems": 1, "items": {"type": "integer", "enum": window.segment_ids}}
    hop = {
        "hop_number": {"type": "integer"},
        "segment_ids": segment_ids,
        "summary": {"type": "string"},
    }
    quota = rules.query_quota(len(window.chunks))
    pair = {
        "question": {"type": "string"},
        "answer": {"type": "string"},
        "question_complexity": {"type": "integer", "enum": list(range(rules.min_complexity, HARDEST + 1))},
        "query_type": {"type": "string", "enum": [name for name, count in quota.items() if count]},
        "reasoning_type": {"type": "string", "enum": [name for name, n in rules.reasoning_quota().items() if n]},
        "segment_ids": segment_ids,
        "hop_count": {"type": "integer", "enum": list(range(1, _max_hops(window, rules) + 1))},
        "hop_contexts": {"type": "array", "items": _object(hop), "maxItems": _max_hops(window, rules)},
    }
    pairs = {"type": "array", "items": _object(pair), "minItems": rules.num_pairs, "maxItems": rules.num_pairs}
    return _object({"pairs": pairs})


def check(reply: str, window: Window, rules: PairRules) -> tuple[list[Pair], list[Fault]]:
    """The usable pairs, tidied, and a fault for each of the others and for a wrong number of them."""
    items, whole = list_in_reply(reply, "pairs")
    faults = [] if whole else [Fault("the answer is not one whole JSON object with a list `pairs`")]
    good: list[Pair] = []
    seen: set[tuple[str, ...]] = set()
    for number, item in enumerate(items, 1):
        pair, reason = _checked(item, window, rules)
        key = tuple(words(pair["question"])) if pair else ()
        if pair and key in seen:
            pair, reason = None, "asks the same as an earlier pair"
        if pair is None:
            faults.append(Fault(f"pair {number}: {reason}", item))
        else:
            seen.add(key)
            good.append(pair)
    if len(good) < rules.num_pairs:
        faults.append(Fault(f"{rules.num_pairs} usable pairs are needed, there are {len(good)}"))
    return good, faults


def _checked(item: Any, window: Window, rules: PairRules) -> tuple[Pair | None, str]:
    """(the pair in its documented form, "") or (None, what is wrong)."""
    if not isinstance(item, dict):
        return None, "is not an object"
    question, answer = (" ".join(str(item.get(name) or "").split()) for name in ("question", "answer"))
    if not question or not answer:
        return None, "question or answer is empty"
    reason = problem_of(question, window.text)
    if reason:
        return None, f"the question {reason}"
    if not ends_sensibly(question) or not ends_sensibly(answer):
        return None, "question or answer breaks off"
    complexity = _whole(item.get("question_complexity"))
    if complexity is None or not rules.min_complexity <= complexity <= HARDEST:
        return None, f"question_complexity must be {rules.min_complexity} to {HARDEST}"
    for name, allowed in (("query_type", rules.query_counts), ("reasoning_type", rules.reasoning_counts)):
        if item.get(name) not in allowed:
            return None, f"{name} must be one of {', '.join(allowed)}"
    segment_ids = _segments(item.get("segment_ids"), window)
    if not segment_ids:
        return None, f"segment_ids must be some of {window.segment_ids}"
    pair = {
        "question": question,
        "answer": answer,
        "question_complexity": complexity,
        "query_type": item["query_type"],
        "reasoning_type": item["reasoning_type"],
        "segment_ids": segment_ids,
        "hop_count": 1,
        "hop_contexts": [],
    }
    if pair["query_type"] != "multi_hop":
        return pair, ""
    return _with_hops(pair, item, window, rules)


def _with_hops(pair: Pair, item: dict[str, Any], window: Window, rules: PairRules) -> tuple[Pair | None, str]:
    hops = item.get("hop_contexts")
    if not isinstance(hops, list) or not all(isinstance(hop, dict) for hop in hops):
        return None, "hop_contexts must be a list of hops"
    most = _max_hops(window, rules)
    if not rules.min_hops <= len(hops) <= most or _whole(item.get("hop_count")) != len(hops):
        return None, f"a multi_hop pair needs {rules.min_hops} to {most} hops, and hop_count must be their number"
    pair["hop_contexts"] = [
        {
            "hop_number": number,
            "segment_ids": _segments(hop.get("segment_ids"), window),
            "summary": str(hop.get("summary") or "").strip(),
        }
        for number, hop in enumerate(hops, 1)
    ]
    union = sorted({segment for hop in pair["hop_contexts"] for segment in hop["segment_ids"]})
    if not all(hop["segment_ids"] for hop in pair["hop_contexts"]) or union != sorted(pair["segment_ids"]):
        return None, "segment_ids must be the union of the hops' segment_ids"
    pair["hop_count"] = len(hops)
    return pair, ""


def _max_hops(window: Window, rules: PairRules) -> int:
    return max(min(rules.max_hops, len(window.chunks)), rules.min_hops)


def _segments(value: Any, window: Window) -> list[int]:
    """Valid segment ids, each once, in order; empty if any does not exist."""
    numbers = [_whole(item) for item in value] if isinstance(value, list) else []
    return sorted(set(numbers)) if numbers and set(numbers) <= set(window.segment_ids) else []


def _whole(value: Any) -> int | None:
    """3, 3.0 and "3" are 3; everything else, true included, is no whole number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    return int(value) if isinstance(value, (int, float)) and value == int(value) else None


def _object(properties: dict[str, Any]) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _quota_lines(quota: Mapping[str, int]) -> str:
    return "\n".join(f"- {name}: {count}" for name, count in quota.items() if count)

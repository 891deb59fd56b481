"""From documents to kept pairs: how many were left at each step, by reason and by type (`funnel.json`)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from pipeline_sdg.documents import Survey
from pipeline_sdg.judge import Evaluation
from pipeline_sdg.llm import RoleUsage
from pipeline_sdg.pairs import Pair

_TYPES = ("query_type", "reasoning_type", "question_complexity", "hop_count", "query_style")
_SHOWN_REASONS = 5
_REASONS = 50
"""Written out for each role; the rest is in rejected.jsonl."""


class Funnel:
    """Counts units, windows and pairs as they are written."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._types = {stage: {name: Counter() for name in _TYPES} for stage in ("written", "kept")}
        self._scores: Counter[int] = Counter()
        self._answerable: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self._remarks: dict[str, Counter[str]] = defaultdict(Counter)

    def unit(self, passages: int, asked_about: int, without_question: int, kept: int) -> None:
        self.counts["documents_without_pairs"] += not kept
        self.counts["documents"] += 1
        self.counts["passages"] += passages
        self.counts["passages_asked_about"] += asked_about
        self.counts["passages_with_question"] += asked_about - without_question

    def window(self, result: Mapping[str, Any]) -> None:
        self.counts["windows"] += 1
        self.counts["windows_unanswered"] += result["unanswered"]
        self.counts["pairs_generated"] += len(result["pairs"])
        for pair in result["pairs"]:
            self._type("written", pair)

    def kept(self, pair: Pair, evaluation: Evaluation) -> None:
        score = evaluation["overall"]["score"]
        self.counts["pairs_kept"] += 1
        self.counts["pairs_unjudged"] += score is None
        self.counts["extra_positives"] += len(pair.get("extra_positives", ()))
        self._type("kept", pair)
        if score is not None:
            self._scores[int(score)] += 1
        if "answerable" in evaluation:
            self._answerable[str(evaluation["answerable"]).lower()] += 1

    def rejected(self, item: Mapping[str, Any]) -> None:
        if item["kind"] == "remark":
            self._remarks[item["role"]][_kind(item)] += 1
            return
        self.counts["rejected"] += 1
        self._reasons[item["role"]][_kind(item)] += 1

    def top_reasons(self) -> str:
        """ "copies the source 12, is too short 3": the most frequent reasons."""
        total: Counter[str] = sum(self._reasons.values(), Counter())
        return ", ".join(f"{reason} {number}" for reason, number in total.most_common(_SHOWN_REASONS))

    def report(self, corpus: Survey, usage: Mapping[str, RoleUsage]) -> dict[str, Any]:
        """What funnel.json holds."""
        counts = self.counts
        return {
            "schema_version": 1,
            "corpus": {
                "files": corpus.files,
                "documents": corpus.found,
                "usable": len(corpus.entries),
                "left_out": {why: item.count for why, item in corpus.left_out.items()},
                "sha256": corpus.sha256,
            },
            "asked": {
                name: counts[name]
                for name in ("documents", "passages", "passages_asked_about", "windows", "windows_unanswered")
            },
            "passages_with_question": counts["passages_with_question"],
            "pairs": {
                "written": counts["pairs_generated"],
                "duplicates": self._reasons["dedup"].total(),
                "dropped_by_hop_check": self._reasons["hop_check"].total(),
                "kept": counts["pairs_kept"],
                "unjudged": counts["pairs_unjudged"],
                "extra_positives": counts["extra_positives"],
            },
            "types": {
                stage: {name: _sorted(found) for name, found in by_name.items() if found}
                for stage, by_name in self._types.items()
            },
            "overall_scores": _sorted(self._scores),
            "answerable": _sorted(self._answerable),
            "rejected": _by_role(self._reasons),
            "remarks": _by_role(self._remarks),
            "repair_turns": {role: _repairs(item) for role, item in usage.items() if item.repair_turns},
        }

    def _type(self, stage: str, pair: Pair) -> None:
        for name in _TYPES:
            if name in pair:
                self._types[stage][name][pair[name]] += 1


def _repairs(usage: RoleUsage) -> dict[str, float]:
    """`share`: of the answers that were not repair turns themselves."""
    first = usage.calls_made + usage.calls_reused - usage.repair_turns
    return {"turns": usage.repair_turns, "share": round(usage.repair_turns / max(first, 1), 4)}


def _by_role(reasons: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {role: dict(found.most_common(_REASONS)) for role, found in sorted(reasons.items()) if found}


def _sorted(found: Counter[Any]) -> dict[str, int]:
    return {str(name): found[name] for name in sorted(found)}


def _kind(item: Mapping[str, Any]) -> str:
    """The reason without what it names (the number of the pair, a document, codes), so that like counts with like."""
    if item["role"] == "dedup":
        return "asks the same as another"
    reason = re.sub(r"^pair \d+: ", "", item["reason"])
    return re.sub(r"\d+", "N", reason if item["kind"] == "remark" else reason.partition(": ")[0])

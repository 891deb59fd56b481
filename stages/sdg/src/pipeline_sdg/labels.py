"""Everything a model is asked about one finished pair: its hops, its scores, its answer, further right passages.

A call that fails costs its own label and nothing else: the pair stays, unjudged or unchecked, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.records.passages import Passage
from pipeline_sdg import answerability, hops, judge, relevance
from pipeline_sdg.chunking import Chunk
from pipeline_sdg.exchange import Exchange, Outcome, ask
from pipeline_sdg.judge import Evaluation, unjudged
from pipeline_sdg.llm import Caller
from pipeline_sdg.pairs import Pair
from pipeline_sdg.relevance import Label
from pipeline_sdg.templates import DEFAULT, Prompts


@dataclass(frozen=True)
class LabelPlan:
    """What is asked, and with which words.

    Attributes:
        prompts: those of the pair's document (`Profiles.of`). The other fields are keys of the configuration.
    """

    quality_judge: Literal["llm", "none"] = "llm"
    check_answers: bool = False
    hop_check: Literal["off", "keep", "relabel", "drop"] = "off"
    repair: bool = True
    prompts: Prompts = DEFAULT


@dataclass
class Labelled:
    """The pair as its labels leave it.

    Attributes:
        pair: None if the hop check rejects it.
        evaluation: always in the documented form; scores are null where nobody judged.
        idle_hops: what the hop check found, "" if all hops are needed or nobody looked.
        asked: every request with its outcome, for the ledger of rejections.
    """

    pair: Pair | None
    evaluation: Evaluation
    idle_hops: str = ""
    asked: list[tuple[Exchange, Outcome]] = field(default_factory=list)


async def label(
    caller: Caller, pair: Pair, chunks: list[Chunk], plan: LabelPlan, found: Sequence[Passage] = ()
) -> Labelled:
    """Ask about one pair; hops first, because they change what the others are asked about.

    Args:
        chunks: what the pair's segment ids count, with neighbours.
        found: passages of the corpus that may answer the question too (`pooling.Pool.candidates`).
    """
    result = Labelled(pair, unjudged("quality_judge=none"))
    if plan.hop_check != "off":
        await _hops(caller, result, pair, chunks, plan)
    if result.pair is None:
        return result
    if plan.quality_judge == "llm":
        outcome = await _ask(caller, result, judge.exchange(result.pair, chunks, plan.prompts), plan)
        failed = outcome.faults[0].reason if outcome.faults else "no answer"
        result.evaluation = outcome.good[0] if outcome.good else unjudged(failed)
    if plan.check_answers:
        outcome = await _ask(caller, result, answerability.exchange(result.pair, chunks, plan.prompts), plan)
        verdict = outcome.good[0] if outcome.good else None
        result.evaluation = answerability.with_verdict(result.evaluation, verdict)
    if found:
        labels: list[Label] = []
        for request in relevance.exchanges(result.pair, found, plan.prompts):
            labels += (await _ask(caller, result, request, plan)).good
        result.pair = relevance.with_positives(result.pair, labels)
    return result


async def _hops(caller: Caller, result: Labelled, pair: Pair, chunks: list[Chunk], plan: LabelPlan) -> None:
    needed = hops.settled(pair)
    request = hops.exchange(pair, chunks, plan.prompts)
    if request:
        outcome = await _ask(caller, result, request, plan)
        needed = outcome.good[0] if outcome.good else None
    if needed is not None and plan.hop_check != "off":
        result.pair, result.idle_hops = hops.apply(pair, needed, plan.hop_check)


async def _ask(caller: Caller, result: Labelled, request: Exchange, plan: LabelPlan) -> Outcome:
    outcome = await ask(caller, request, plan.repair, plan.prompts)
    result.asked.append((request, outcome))
    return outcome

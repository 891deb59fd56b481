"""From windows to judged pairs: artifacts and pairs per window, duplicates over the corpus, one score per pair."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from pipeline.errors import PipelineError
from pipeline.run.progress import progress
from pipeline_sdg import artifacts as artifact_step
from pipeline_sdg import pairs as pair_step
from pipeline_sdg import questions as question_step
from pipeline_sdg.artifacts import Artifacts, no_artifacts
from pipeline_sdg.chunking import Window, pairs_of
from pipeline_sdg.exchange import Exchange, Outcome, ask
from pipeline_sdg.judge import cited
from pipeline_sdg.labels import Labelled, LabelPlan, label
from pipeline_sdg.llm import Caller
from pipeline_sdg.pairs import Pair, PairRules
from pipeline_sdg.pooling import Pool
from pipeline_sdg.similarity import duplicates, rank_of, word_vectors
from pipeline_sdg.vectors import Embed, embedded

log = logging.getLogger("pipeline")
Item = TypeVar("Item")


@dataclass(frozen=True)
class GenerationPlan:
    """What is asked of the models."""

    rules: PairRules
    qa_format: Literal["full", "questions"] = "full"
    artifacts: bool = True
    max_artifacts_per_type: int = 2
    repair: bool = True
    window_tokens: int | None = None

    def rules_of(self, window: Window) -> PairRules:
        """The rules with the number of pairs that this window gets."""
        return replace(self.rules, num_pairs=pairs_of(window, self.rules.num_pairs, self.window_tokens))


@dataclass(frozen=True)
class Rejection:
    """Something a model answered that was not used, and why."""

    document: str
    window: int
    role: str
    reason: str
    item: Any = None
    reply: str | None = None
    finish_reason: str | None = None


@dataclass
class WindowResult:
    window: Window
    artifacts: Artifacts = field(default_factory=no_artifacts)
    pairs: list[Pair] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    unanswered: bool = False
    """No call for pairs got an answer: worth another try."""


async def generate(windows: list[Window], plan: GenerationPlan, caller: Caller, parallel: int) -> list[WindowResult]:
    """The pairs of every window, in order. Windows whose calls failed get one more try at the end."""
    results: dict[int, WindowResult] = {}

    async def work(number: int) -> None:
        results[number] = await _window(windows[number], plan, caller)
        shown.advance(note=f"{sum(len(result.pairs) for result in results.values())} pairs")

    with progress("writing questions", len(windows), "windows") as shown:
        await each(range(len(windows)), work, parallel)
    again = [number for number, result in sorted(results.items()) if result.unanswered]
    if again:
        log.warning(f"{len(again)} windows got no answer: trying them once more")
        with progress("second try", len(again), "windows") as shown:
            await each(again, work, parallel)
    return [results[number] for number in range(len(windows))]


async def _window(window: Window, plan: GenerationPlan, caller: Caller) -> WindowResult:
    result = WindowResult(window)
    if plan.artifacts:
        request = artifact_step.exchange(window, plan.max_artifacts_per_type)
        outcome = await ask(caller, request, plan.repair)
        result.artifacts = outcome.good[0] if outcome.good else no_artifacts()
        result.rejections += _rejections(window, request, outcome)
    if plan.qa_format == "full":
        request = pair_step.exchange(window, plan.rules_of(window), result.artifacts)
        outcome = await ask(caller, request, plan.repair)
        result.pairs, result.unanswered = outcome.good, outcome.unanswered
        result.rejections += _rejections(window, request, outcome)
    else:
        await _questions(result, plan, caller)
    return result


async def _questions(result: WindowResult, plan: GenerationPlan, caller: Caller) -> None:
    """One call for each sentence, the richest first, until there are `num_pairs` questions or no sentences."""
    answered = asked = 0
    wanted = plan.rules_of(result.window).num_pairs
    for request in question_step.exchanges(result.window, wanted):
        if len(result.pairs) >= wanted:
            break
        outcome = await ask(caller, request, plan.repair)
        asked += 1
        answered += not outcome.unanswered
        result.pairs += [pair for pair in outcome.good if request.same(pair) not in map(request.same, result.pairs)]
        result.rejections += _rejections(result.window, request, outcome)
    result.unanswered = bool(asked) and not answered


def _rejections(window: Window, request: Exchange, outcome: Outcome) -> list[Rejection]:
    reply = outcome.reply
    return [
        Rejection(
            window.document,
            window.index,
            request.role,
            fault.reason,
            fault.item,
            reply.text if reply else None,
            reply.finish_reason if reply else None,
        )
        for fault in outcome.faults
    ]


async def drop_duplicates(
    results: list[WindowResult], threshold: float, embed: Embed | None, folder: Path
) -> list[tuple[WindowResult, Pair]]:
    """All pairs of the corpus but those whose question is more alike a better pair's than `threshold`.

    `embed` None: alike are questions of the same words. `folder` keeps vectors while they are needed.
    """
    everything = [(result, pair) for result in results for pair in result.pairs]
    questions = [pair["question"] for _, pair in everything]
    if not questions:
        return []
    vectors = await embedded(questions, "query", embed, folder) if embed else word_vectors(questions)
    dropped = duplicates(vectors, threshold, np.array([rank_of(pair) for _, pair in everything]))
    for row, kept in dropped.items():
        result, pair = everything[row]
        reason = f"asks the same as a question of {everything[kept][0].window.document}"
        result.rejections.append(Rejection(result.window.document, result.window.index, "dedup", reason, pair))
    return [item for row, item in enumerate(everything) if row not in dropped]


async def label_all(
    kept: list[tuple[WindowResult, Pair]],
    plan: LabelPlan,
    caller: Caller,
    parallel: int,
    pool: Pool | None,
    pooled: int,
) -> list[Labelled]:
    """What the models say of each pair, in order. `pooled` passages of each system of `pool` are looked at.

    A pair that cannot be judged stays, with score null; one that the hop check rejects has no pair any more.
    """
    labelled: dict[int, Labelled] = {}

    async def work(number: int) -> None:
        result, pair = kept[number]
        chunks = result.window.chunks
        own = [chunk["text"] for chunk in cited(pair, chunks)]
        found = (await pool.candidates([pair], [own], pooled))[0] if pool else ()
        done = labelled[number] = await label(caller, pair, chunks, plan, found)
        for request, outcome in done.asked:
            result.rejections += _rejections(result.window, request, outcome)
        if done.pair is None:
            where = result.window.document, result.window.index
            result.rejections.append(Rejection(*where, "hop_check", done.idle_hops, pair))
        shown.advance()

    with progress("judging", len(kept), "pairs") as shown:
        await each(range(len(kept)), work, parallel)
    return [labelled[number] for number in range(len(kept))]


async def each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]], parallel: int) -> None:
    """`work` over all items, `parallel` at once, begun in order.

    After the first error nothing new begins, calls under way are let finish (they are paid for and go into the
    journal), then the error is raised.
    """
    waiting = iter(items)
    errors: list[Exception] = []

    async def worker() -> None:
        for item in waiting:
            if errors:
                return
            try:
                await work(item)
            except Exception as error:
                errors.append(error)

    await asyncio.gather(*(worker() for _ in range(parallel)))
    if errors:
        raise next((error for error in errors if isinstance(error, PipelineError)), errors[0])

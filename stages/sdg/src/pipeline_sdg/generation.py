"""From windows to judged pairs: artifacts and pairs per window, duplicates over the corpus, one score per pair.

What each step makes lies on disk (`spool`), by the number of the window or of the pair.
"""

from __future__ import annotations

import logging
from array import array
from asyncio import gather
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage
from pipeline.run.progress import progress
from pipeline_sdg import artifacts as artifact_step
from pipeline_sdg import questions as question_step
from pipeline_sdg.artifacts import Artifacts, no_artifacts
from pipeline_sdg.chunking import Window, pairs_of
from pipeline_sdg.exchange import Exchange, Outcome, ask
from pipeline_sdg.judge import Evaluation, cited
from pipeline_sdg.labels import LabelPlan, label
from pipeline_sdg.llm import Caller
from pipeline_sdg.meter import Meter
from pipeline_sdg.pairs import Pair, PairRules, exchange, pairs_of_window
from pipeline_sdg.pooling import Pool
from pipeline_sdg.similarity import duplicates, rank_of, word_vectors
from pipeline_sdg.spool import Slots
from pipeline_sdg.templates import Profiles, Prompts
from pipeline_sdg.vectors import Embed, embedded

log = logging.getLogger("pipeline")
Item = TypeVar("Item")
_SEARCHED_AT_ONCE = 256
Rejection = dict[str, Any]
"""Something a model answered that was not used: kind, document, window, role, reason, item, reply, finish_reason. Of
the kind `remark`: what the used parts lack as a whole."""


@dataclass(frozen=True)
class GenerationPlan:
    """What is asked of the models."""

    rules: PairRules
    profiles: Profiles
    qa_format: Literal["full", "questions"] = "full"
    artifacts: bool = True
    max_artifacts_per_type: int = 2
    repair: bool = True
    window_tokens: int | None = None

    def rules_of(self, window: Window) -> PairRules:
        """The rules with the number of pairs that this window gets."""
        return replace(self.rules, num_pairs=pairs_of(window, self.rules.num_pairs, self.window_tokens))


def prompts_of(window: Window, profiles: Profiles) -> Prompts:
    """Those of its document, or of a bundle's first."""
    return profiles.of(window.members[0] if window.members else window.document)


@dataclass
class WindowResult:
    """What the models made of one window."""

    artifacts: Artifacts = field(default_factory=no_artifacts)
    pairs: list[Pair] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    unanswered: bool = False
    """No call for pairs got an answer: worth another try."""


@dataclass
class PairResult:
    """A pair as its labels leave it; `pair` is None if the hop check rejects it."""

    pair: Pair | None
    evaluation: Evaluation
    rejections: list[Rejection] = field(default_factory=list)


@dataclass
class Rows:
    """Every pair of the corpus, in order: its window, its place among the window's pairs, and which row it repeats."""

    windows: array[int] = field(default_factory=lambda: array("q"))
    places: array[int] = field(default_factory=lambda: array("q"))
    repeats: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def kept(self) -> list[int]:
        return [row for row in range(len(self)) if row not in self.repeats]

    def of_window(self, window: int) -> range:
        return range(bisect_left(self.windows, window), bisect_right(self.windows, window))


async def generate(
    windows: Sequence[Window], plan: GenerationPlan, caller: Caller, parallel: int, folder: Path
) -> Slots:
    """A WindowResult (as a dict) for every window. Windows whose calls failed get one more try at the end."""
    results, again = Slots(folder, len(windows)), set()
    meter, pairs = Meter(caller.usage), 0

    async def work(number: int) -> None:
        nonlocal pairs
        result = await _window(windows[number], plan, caller)
        results[number] = asdict(result)
        (again.add if result.unanswered else again.discard)(number)
        pairs += len(result.pairs)
        shown.advance(note=", ".join(filter(None, (f"{pairs:,} pairs", meter.note()))))

    with progress("writing questions", len(windows), "windows") as shown:
        await each(range(len(windows)), work, parallel)
    if again:
        log.warning(f"{len(again)} windows got no answer: trying them once more")
        with progress("second try", len(again), "windows") as shown:
            await each(sorted(again), work, parallel)
    return results


async def _window(window: Window, plan: GenerationPlan, caller: Caller) -> WindowResult:
    result, prompts = WindowResult(), prompts_of(window, plan.profiles)
    if plan.artifacts:
        request = artifact_step.exchange(window, plan.max_artifacts_per_type, prompts=prompts)
        outcome = await ask(caller, request, plan.repair, prompts)
        result.artifacts = outcome.good[0] if outcome.good else no_artifacts()
        result.rejections += rejections_of(window, request, outcome)
    if plan.qa_format == "full":
        rules = plan.rules_of(window)
        notes = _notes_for(window, rules, result.artifacts, caller, prompts)
        result.pairs, asked = await pairs_of_window(caller, window, rules, notes, plan.repair, prompts)
        result.unanswered = all(outcome.unanswered for _, outcome in asked)
        for request, outcome in asked:
            result.rejections += rejections_of(window, request, outcome)
    else:
        await _questions(result, window, plan, caller, prompts)
    return result


def _notes_for(window: Window, rules: PairRules, found: Artifacts, caller: Caller, prompts: Prompts) -> Artifacts:
    """The artifacts to write pairs from. None where an earlier run, whose call for artifacts had failed, has paid for
    the pairs already: with other notes they would be paid for again."""
    if caller.first_run or not any(found.values()):
        return found
    known = [
        caller.knows(request.role, request.messages, request.schema, request.max_tokens)
        for request in (exchange(window, rules, notes, prompts) for notes in (found, no_artifacts()))
    ]
    return no_artifacts() if known == [False, True] else found


async def _questions(
    result: WindowResult, window: Window, plan: GenerationPlan, caller: Caller, prompts: Prompts
) -> None:
    """One call for each sentence, the richest first, until there are `num_pairs` questions or no sentences."""
    answered = asked = 0
    wanted = plan.rules_of(window).num_pairs
    for request in question_step.exchanges(window, wanted, prompts=prompts, styles=plan.rules.query_styles):
        if len(result.pairs) >= wanted:
            break
        outcome = await ask(caller, request, plan.repair, prompts)
        asked += 1
        answered += not outcome.unanswered
        result.pairs += [pair for pair in outcome.good if request.same(pair) not in map(request.same, result.pairs)]
        result.rejections += rejections_of(window, request, outcome)
    result.unanswered = bool(asked) and not answered


def rejections_of(window: Window, request: Exchange, outcome: Outcome) -> list[Rejection]:
    """The faults of an outcome, for the ledger."""
    found = []
    for fault in outcome.faults:
        reply = fault.reply or outcome.reply
        answer = (reply.text, reply.finish_reason) if reply else (None, None)
        found.append(rejection(window, request.role, fault.reason, fault.item, *answer, remark=fault.remark))
    return found


def rejection(
    window: Window,
    role: str,
    reason: str,
    item: Any,
    reply: str | None = None,
    finish_reason: str | None = None,
    *,
    remark: bool = False,
) -> Rejection:
    return {
        "kind": "remark" if remark else "rejected",
        "document": window.document,
        "window": window.index,
        "role": role,
        "reason": reason,
        "item": item,
        "reply": reply,
        "finish_reason": finish_reason,
    }


async def find_repeats(
    results: Slots, threshold: float, embed: Embed | None, folder: Path, hops_may_drop: bool = False
) -> Rows:
    """All pairs of the corpus, and which of them ask what a better pair asks (cosine above `threshold`).

    `embed` None: alike are questions of the same words. `folder` keeps vectors while they are needed.
    """
    rows, ranks = Rows(), array("d")

    def questions() -> Iterator[str]:
        for number, result in enumerate(results):
            for place, pair in enumerate(result["pairs"]):
                rows.windows.append(number)
                rows.places.append(place)
                ranks.extend(rank_of(pair, hops_may_drop))
                yield pair["question"]

    vectors = await embedded(questions(), "query", embed, folder) if embed else word_vectors(questions())
    if len(rows):
        rows.repeats = duplicates(vectors, threshold, np.asarray(ranks).reshape(len(rows), -1))
    return rows


async def label_all(
    rows: Rows,
    results: Slots,
    windows: Sequence[Window],
    plan: LabelPlan,
    profiles: Profiles,
    caller: Caller,
    parallel: int,
    pool: Pool | None,
    pooled: int,
    folder: Path,
) -> Slots:
    """A PairResult (as a dict) for every row that is kept. `pooled` passages of each system of `pool` are looked at.

    A pair that cannot be judged stays, with score null; one that the hop check rejects has no pair any more.
    """
    labels, kept, meter = Slots(folder, len(rows)), rows.kept, Meter(caller.usage)
    pooled_for = await _candidates(kept, rows, results, windows, pool, pooled, folder) if pool else None

    async def work(row: int) -> None:
        number = rows.windows[row]
        window, pair = windows[number], results[number]["pairs"][rows.places[row]]
        found = [Passage(**item) for item in pooled_for[row]] if pooled_for else ()
        done = await label(caller, pair, window.chunks, replace(plan, prompts=prompts_of(window, profiles)), found)
        rejections = [item for request, outcome in done.asked for item in rejections_of(window, request, outcome)]
        if done.pair is None:
            rejections.append(rejection(window, "hop_check", done.idle_hops, pair))
        labels[row] = asdict(PairResult(done.pair, done.evaluation, rejections))
        shown.advance(note=meter.note())

    with progress("judging", len(kept), "pairs") as shown:
        await each(kept, work, parallel)
    return labels


async def _candidates(
    kept: list[int], rows: Rows, results: Slots, windows: Sequence[Window], pool: Pool, pooled: int, folder: Path
) -> Slots:
    """The passages (as dicts) to look at for every row that is kept; many rows at once, for they share the search."""
    found = Slots(folder, len(rows))
    with progress("pooling passages", len(kept), "pairs") as shown:
        for first in range(0, len(kept), _SEARCHED_AT_ONCE):
            block = kept[first : first + _SEARCHED_AT_ONCE]
            pairs = [results[rows.windows[row]]["pairs"][rows.places[row]] for row in block]
            own = [
                [chunk["text"] for chunk in cited(pair, windows[rows.windows[row]].chunks)]
                for row, pair in zip(block, pairs, strict=True)
            ]
            for row, passages in zip(block, await pool.candidates(pairs, own, pooled), strict=True):
                found[row] = [asdict(passage) for passage in passages]
            shown.advance(len(block))
    return found


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

    await gather(*(worker() for _ in range(parallel)))
    if errors:
        raise next((error for error in errors if isinstance(error, PipelineError)), errors[0])

"""Question–answer pairs with types, difficulty and hops (`qa_format: full`): the requests for one window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline_sdg import styles
from pipeline_sdg.artifacts import Artifacts, as_notes
from pipeline_sdg.chunking import Window, sections
from pipeline_sdg.endpoints import QA
from pipeline_sdg.exchange import Exchange, Outcome, ask
from pipeline_sdg.forms import TEXT, list_of, object_of
from pipeline_sdg.llm import Caller, Schema
from pipeline_sdg.pair_checks import best_mix, check, key_of, lacking
from pipeline_sdg.pair_rules import HARDEST, VISUAL, Pair, PairRules, Slot
from pipeline_sdg.templates import DEFAULT, Prompts

__all__ = ["Pair", "PairRules", "check", "exchange", "pairs_of_window", "schema"]


def exchange(
    window: Window, rules: PairRules, artifacts: Artifacts, prompts: Prompts = DEFAULT, before: Sequence[Pair] = ()
) -> Exchange:
    """The request for the pairs of one window; with `before` for those that are missing to `num_pairs`."""
    slots, most = rules.slots(window, before), rules.most_hops(window)
    prompt = prompts.render(
        "qa",
        title=window.title,
        sections="\n".join(sections(window.chunks, rules.num_sections, rules.strategy, window.title)),
        notes=as_notes(artifacts),
        num_pairs=len(slots),
        slots="\n".join(f"{number}. {_line(slot, rules)}" for number, slot in enumerate(slots, 1)),
        visual=_visual(window, rules, prompts),
        extra=_extra(window, rules, prompts, before),
        min_hops=min(max(2, rules.min_hops), most),  # one hop passes the check, but nobody is to aim at it
        max_hops=most,
        min_complexity=rules.min_complexity,
    )
    return Exchange(
        QA,
        [{"role": "user", "content": prompt}],
        schema(window, rules, slots),
        lambda reply: check(reply, window, rules, before),
        wanted=len(slots),
        same=key_of,
        choose=lambda pairs: best_mix(pairs, slots),
        lacking=lambda pairs: lacking(pairs, slots),
    )


def schema(window: Window, rules: PairRules, slots: Sequence[Slot]) -> Schema:
    """The form of an answer with a pair for each of `slots`.

    Every list has an end: a model that is held to the form and has lost its way would write to the token limit.
    """
    most, count = rules.most_hops(window), len(slots)
    segment_ids = list_of({"type": "integer", "enum": window.segment_ids}, 1, len(window.chunks))
    kinds = {name: list(dict.fromkeys(getattr(slot, name) for slot in slots)) for name in rules.allowed(window)}
    hop = {"hop_number": {"type": "integer"}, "segment_ids": segment_ids, "summary": TEXT}
    pair = {
        "question": TEXT,
        "answer": TEXT,
        "question_complexity": {"type": "integer", "enum": list(range(rules.min_complexity, HARDEST + 1))},
        **{name: {"type": "string", "enum": allowed} for name, allowed in kinds.items()},
        "segment_ids": segment_ids,
        "hop_count": {"type": "integer", "enum": list(range(1, most + 1))},
        "hop_contexts": list_of(object_of(hop), 0, most),
    }
    return object_of({"pairs": list_of(object_of(pair), count, count)})


async def pairs_of_window(
    caller: Caller, window: Window, rules: PairRules, artifacts: Artifacts, repair: bool, prompts: Prompts = DEFAULT
) -> tuple[list[Pair], list[tuple[Exchange, Outcome]]]:
    """The pairs of one window, and every request with its outcome.

    Answers of earlier runs are used first, those that asked for most pairs before others, so that a raised `num_pairs`
    pays only for the further pairs. How many were asked for drives the chain, not how many of them were good: a run
    that is taken up again goes the same way.
    """
    pairs: list[Pair] = []
    asked: list[tuple[Exchange, Outcome]] = []
    reached = 0
    while reached < rules.num_pairs:
        reached, request = _next(caller, window, rules, artifacts, prompts, pairs, reached)
        outcome = await ask(caller, request, repair, prompts)
        asked.append((request, outcome))
        if outcome.unanswered:
            break
        pairs = [*pairs, *outcome.good]
    return pairs, asked


def _next(
    caller: Caller,
    window: Window,
    rules: PairRules,
    artifacts: Artifacts,
    prompts: Prompts,
    pairs: Sequence[Pair],
    reached: int,
) -> tuple[int, Exchange]:
    """The request whose answer is known and leads furthest, else the one for all that is left; and how far it leads."""
    everything = exchange(window, rules, artifacts, prompts, pairs)
    if caller.first_run:
        return rules.num_pairs, everything
    for most in range(rules.num_pairs, reached, -1):
        request = everything
        if most < rules.num_pairs:
            request = exchange(window, replace(rules, num_pairs=most), artifacts, prompts, pairs)
        if caller.knows(request.role, request.messages, request.schema, request.max_tokens):
            return most, request
    return rules.num_pairs, everything


def _line(slot: Slot, rules: PairRules) -> str:
    types = f"{slot.query_type}, {slot.reasoning_type}"
    return f"{types}, {slot.query_style}" if rules.styled else types


def _visual(window: Window, rules: PairRules, prompts: Prompts) -> str:
    """The definition of the type, on a line of its own, where it is asked for."""
    return f"\n{prompts.render('qa_visual')}" if VISUAL in rules.allowed(window)["reasoning_type"] else ""


def _extra(window: Window, rules: PairRules, prompts: Prompts, before: Sequence[Pair]) -> str:
    """What only some requests need: about bundles, styles, and pairs there are already."""
    parts = []
    if len(window.members) > 1:
        parts.append(prompts.render("qa_bundle"))
    if rules.styled:
        parts.append(styles.instructions(rules.personas, prompts))
    if before:
        parts.append(prompts.render("qa_before", questions="\n".join(f"- {pair['question']}" for pair in before)))
    return "".join(f"\n\n{part}" for part in parts)

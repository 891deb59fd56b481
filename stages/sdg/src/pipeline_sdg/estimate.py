"""How many calls, tokens and how much money a run will need, said before it begins.

Prompts are measured: the shipped templates and the texts that are put into them, four characters a token. Answers are
guessed, until the journal holds enough replies of a role: then their own means count, in any language.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.schemas.sdg import QUERY_TYPES, SdgConfig
from pipeline_sdg.artifacts import TYPES
from pipeline_sdg.calls.usage import Prices, estimated_tokens
from pipeline_sdg.endpoints import ARTIFACTS, EMBED, JUDGE, QA
from pipeline_sdg.llm import EMBED_BATCH
from pipeline_sdg.meter import money
from pipeline_sdg.relevance import PASSAGES_AT_ONCE
from pipeline_sdg.templates import DEFAULT

ENOUGH_REPLIES = 20
"""So many replies of a role in the journal say more than the figures below."""

# Lengths of answers in characters, by hand. The sample records of the upstream format (24 documents, 190 pairs as
# JSON) have 1,081 for a pair: a question of 60, an answer of up to 600, and the rest for types, segments and hops. An
# evaluation without its reasons has 235; six reasons of a sentence each come to it. They hold no artifacts, so that
# figure is the form with a sentence in each part.
_PAIR = 1_080
_EVALUATION = 235 + 6 * 100
_ARTIFACT = 200
_VERDICT = 600
"""Of an answer check or a hop check: what is quoted or added, a sentence, the verdict."""
_GRADE = 140
"""Of one passage in pooled judging."""
_SMALL_QUESTION = 100
"""A whole answer in qa_format=questions."""

_QUESTION, _SENTENCE = 80, 130
_LABEL = 14
"""The number before each passage."""
_CITED, _BESIDE = 1.6, 2
"""Passages that a pair cites (three of seven pairs are multi-hop, of two or three), and those shown beside them."""
_SYSTEMS = 2
"""Systems that pool different passages."""


@dataclass(frozen=True)
class WindowSize:
    """What is known of a window before its calls: characters of its text, passages, pairs that will be asked for."""

    characters: int
    passages: int
    num_pairs: int


@dataclass
class Need:
    """Calls and tokens of one role."""

    calls: float = 0
    input_tokens: float = 0
    output_tokens: float = 0

    @property
    def tokens(self) -> float:
        return self.input_tokens + self.output_tokens


Calls = tuple[str, float, float, float]
"""role, calls, characters that each reads, characters that each writes."""


def estimate(
    sizes: Iterable[WindowSize],
    config: SdgConfig,
    roles: Collection[str],
    known: Mapping[str, tuple[float, float]],
) -> dict[str, Need]:
    """What each of `roles` will need for these windows, if nothing is in the journal and nothing goes wrong.

    `known`: mean tokens (in, out) of a reply by role, `Journal.means(ENOUGH_REPLIES)`.
    """
    needs, longest = {role: Need() for role in roles}, config.max_tokens or math.inf
    for size in sizes:
        for role, calls, read, written in _calls(size, config):
            if role in needs:
                need = needs[role]
                need.calls += calls
                need.input_tokens += calls * estimated_tokens(read)
                need.output_tokens += calls * min(longest, estimated_tokens(written))
    for role, need in needs.items():
        if role == EMBED:  # counted by text until here
            need.calls = math.ceil(need.calls / EMBED_BATCH)
        elif role in known:
            need.input_tokens, need.output_tokens = (need.calls * mean for mean in known[role])
    return needs


def described(needs: Mapping[str, Need], prices: Prices) -> list[str]:
    """Lines for people: each role, then all of them."""
    lines = []
    for role, need in needs.items():
        cost = _cost(role, need, prices)
        line = (
            f"{role}: about {need.calls:,.0f} calls, {need.input_tokens:,.0f} tokens in, {need.output_tokens:,.0f} out"
        )
        lines.append(line if cost is None else f"{line}, {money(cost)}")
    tokens, cost = _totals(needs, prices)
    line = f"all: about {tokens:,.0f} tokens" + (f", {money(cost)}" if cost is not None else "")
    unpriced = [role for role, need in needs.items() if _cost(role, need, prices) is None]
    if cost is not None and unpriced:
        line += f" (no price: {', '.join(unpriced)})"
    return [*lines, f"{line}; repairs and retries come on top, what the journal knows is not paid again"]


def warnings(needs: Mapping[str, Need], prices: Prices, config: SdgConfig) -> list[str]:
    """What to say if the budget will hardly suffice."""
    tokens, cost = _totals(needs, prices)
    found = []
    if config.max_tokens_total is not None and tokens > config.max_tokens_total:
        found.append(_short("max_tokens_total", f"{config.max_tokens_total:,}", f"{tokens:,.0f} tokens"))
    if config.max_cost is not None and cost is not None and cost > config.max_cost:
        found.append(_short("max_cost", f"{config.max_cost:g}", money(cost)))
    return found


def _short(key: str, limit: str, need: str) -> str:
    return f"{key}={limit} will hardly suffice: the estimate is {need}; the run stops there, a larger limit goes on"


def _cost(role: str, need: Need, prices: Prices) -> float | None:
    return prices.cost(role, need.input_tokens, need.output_tokens)


def _totals(needs: Mapping[str, Need], prices: Prices) -> tuple[float, float | None]:
    costs = [cost for role, need in needs.items() if (cost := _cost(role, need, prices)) is not None]
    return sum(need.tokens for need in needs.values()), sum(costs) if costs else None


def _calls(size: WindowSize, config: SdgConfig) -> Iterator[Calls]:
    text = size.characters + size.passages * _LABEL
    if config.qa_format == "full":
        artifacts = len(TYPES) * config.max_artifacts_per_type * _ARTIFACT if config.artifacts else 0
        if artifacts:
            yield ARTIFACTS, 1, _template("artifacts") + size.characters, artifacts
        yield QA, 1, _template("qa") + text + artifacts, size.num_pairs * _PAIR
    else:
        yield QA, size.num_pairs, _template("qa_small") + _SENTENCE, _SMALL_QUESTION
    yield EMBED, size.num_pairs, _QUESTION, 0
    passage = text / max(1, size.passages)
    if config.pooled_judging:
        yield EMBED, size.passages, passage, 0
    yield from _judgements(size, passage, config)


def _judgements(size: WindowSize, passage: float, config: SdgConfig) -> Iterator[Calls]:
    """What is asked about each pair, if no pair is a duplicate. `passage`: characters of one."""
    pairs, cited = size.num_pairs, _CITED * passage
    if config.quality_judge == "llm":
        yield JUDGE, pairs, _template("judge") + cited + _BESIDE * passage + _PAIR / 2, _EVALUATION
    if config.check_answers:
        yield JUDGE, pairs, _template("answerable") + cited + _PAIR / 2, _VERDICT
    if config.hop_check != "off" and config.qa_format == "full":
        share = config.query_counts.get(QUERY_TYPES[0], 0) / sum(config.query_counts.values())
        yield JUDGE, pairs * share, _template("hop") + 2 * cited + _PAIR / 2, _VERDICT
    if config.pooled_judging:
        found = _SYSTEMS * config.pooled_judging
        calls = math.ceil(found / PASSAGES_AT_ONCE)
        yield JUDGE, pairs * calls, _template("relevance") + found / calls * passage + _PAIR / 2, found / calls * _GRADE


def _template(name: str) -> int:
    return len(DEFAULT.templates[name].template)

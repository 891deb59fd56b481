"""What calls cost: tokens and money by role, and the report of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline_sdg.journal import Reply

PRICED = 1_000_000
"""Prices are for so many tokens."""
CHARACTERS_PER_TOKEN = 4
"""A rough figure for estimates; what the endpoint reports counts."""


def estimated_tokens(characters: float) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


@dataclass
class RoleUsage:
    """Calls and tokens of one role. `reused` came from the journal and cost nothing in this run; `cost` is in the
    currency of the prices, None without prices. Vectors that were reused count as the calls that they would fill."""

    provider: str
    model: str
    calls_made: int = 0
    calls_reused: int = 0
    vectors_reused: int = 0
    calls_failed: int = 0
    retries: int = 0
    rate_limited: int = 0
    repair_turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reused_input_tokens: int = 0
    reused_output_tokens: int = 0
    redacted: int = 0
    cost: float | None = None

    def count(self, reply: Reply, reused: bool) -> None:
        if reused:
            self.calls_reused += 1
            self.reused_input_tokens += reply.input_tokens
            self.reused_output_tokens += reply.output_tokens
        else:
            self.calls_made += 1
            self.input_tokens += reply.input_tokens
            self.output_tokens += reply.output_tokens

    def count_vectors(self, replies: Collection[Reply], in_one_call: int) -> None:
        """Vectors that the journal knew, however few are asked for at a time."""
        self.vectors_reused += len(replies)
        self.calls_reused = math.ceil(self.vectors_reused / in_one_call)
        self.reused_input_tokens += sum(reply.input_tokens for reply in replies)


def usage_report(usage: Mapping[str, RoleUsage], complete: bool) -> dict[str, Any]:
    """What usage.json holds: each role, the sums, and the cost of all (None if no role has a price).

    `complete` false: the run ended early, and this is what it used until then.
    """
    roles = {role: asdict(item) for role, item in usage.items()}
    counted = [name for name, value in asdict(RoleUsage("", "")).items() if isinstance(value, int)]
    total: dict[str, Any] = {name: sum(role[name] for role in roles.values()) for name in counted}
    return {"schema_version": 1, "complete": complete, "roles": roles, "total": {**total, "cost": total_cost(usage)}}


def total_cost(usage: Mapping[str, RoleUsage]) -> float | None:
    """Money of all roles together; None if none has a price or nothing was paid for."""
    costs = [item.cost for item in usage.values() if item.cost is not None]
    return math.fsum(costs) if costs else None


class Prices:
    """Money for a million tokens: one pair `{input, output}` for all roles, or such a pair by role.

    Raises:
        PipelineError: not of that form.
    """

    def __init__(self, prices: Mapping[str, Any], roles: Collection[str]) -> None:
        by_role = dict.fromkeys(roles, prices) if "input" in prices or "output" in prices else prices
        self._pairs = {role: _pair(role, by_role[role]) for role in roles if role in by_role}
        unknown = [] if by_role is not prices else sorted(set(prices) - set(roles))
        if unknown and not self._pairs:
            raise PipelineError(
                f"prices: {', '.join(unknown)} is no role of this run", fix=f"roles: {', '.join(sorted(roles))}"
            )

    def cost(self, role: str, input_tokens: float, output_tokens: float) -> float | None:
        """None: this role has no price."""
        pair = self._pairs.get(role)
        return pair and (input_tokens * pair[0] + output_tokens * pair[1]) / PRICED


def _pair(role: str, value: Any) -> tuple[float, float]:
    known = isinstance(value, Mapping) and value and set(value) <= {"input", "output"}
    numbers = [value.get(name, 0) for name in ("input", "output")] if known else [None]
    if not all(isinstance(item, (int, float)) and not isinstance(item, bool) and 0 <= item < 1e9 for item in numbers):
        raise PipelineError(
            f"prices of {role}: expected {{input, output}} in money for a million tokens, found {value!r:.80}",
            fix="write prices='{input: 0.1, output: 0.4}', or such a pair by role",
        )
    return float(numbers[0]), float(numbers[1])

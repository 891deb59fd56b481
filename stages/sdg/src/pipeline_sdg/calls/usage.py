"""What calls cost: tokens and money by role, and the budget that ends a run."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline_sdg.journal import Reply

PRICED = 1_000_000
"""Prices are for so many tokens."""
CHARACTERS_PER_TOKEN = 4
"""A rough figure for estimates; what the endpoint reports counts."""
_FIRST_GUESS = 500
"""Tokens of an answer before one is known."""


def estimated_tokens(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


@dataclass
class RoleUsage:
    """Calls and tokens of one role. `reused` came from the journal and cost nothing in this run; `cost` is in the
    currency of the prices, None without prices."""

    provider: str
    model: str
    calls_made: int = 0
    calls_reused: int = 0
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


class BudgetReached(PipelineError):
    """The next call could go beyond the budget; what was paid for is saved."""


class Budget:
    """Tokens and money of a run folder, over all its runs: `spent` is what its journals hold, (input, output) by role.

    Raises:
        PipelineError: `max_cost` without a price for every role.
    """

    def __init__(
        self,
        prices: Prices,
        spent: Mapping[str, tuple[int, int]],
        roles: Collection[str],
        max_tokens_total: int | None = None,
        max_cost: float | None = None,
    ) -> None:
        unpriced = [role for role in roles if prices.cost(role, 0, 0) is None]
        if max_cost is not None and unpriced:
            raise PipelineError(
                f"max_cost={max_cost:g} needs prices for {', '.join(unpriced)}",
                fix="set prices='{input: 0.1, output: 0.4}' (money for a million tokens), or such a pair by role",
            )
        self._prices, self._max_tokens, self._max_cost = prices, max_tokens_total, max_cost
        self.tokens = sum(map(sum, spent.values()))
        self.cost = sum(prices.cost(role, *pair) or 0.0 for role, pair in spent.items())
        self._longest = dict.fromkeys(roles, _FIRST_GUESS)

    def reserve(self, role: str, input_tokens: int, output_limit: int | None) -> tuple[int, int]:
        """Set aside what a call may need: its prompt, and an answer as long as the role's longest so far.

        Raises:
            BudgetReached: that does not fit, calls under way included.
        """
        need = input_tokens, min(self._longest[role], output_limit or self._longest[role])
        cost = self._prices.cost(role, *need) or 0.0
        if self._max_tokens is not None and self.tokens + sum(need) > self._max_tokens:
            raise _reached("max_tokens_total", f"{self._max_tokens:,}", f"{self.tokens:,} tokens", f"{sum(need):,}")
        if self._max_cost is not None and self.cost + cost > self._max_cost:
            raise _reached("max_cost", f"{self._max_cost:g}", f"{self.cost:.4g}", f"{cost:.4g}")
        self._add(role, need, 1)
        return need

    def settle(self, role: str, reserved: tuple[int, int], used: tuple[int, int] = (0, 0)) -> None:
        """Put what was used in the place of what was set aside."""
        self._add(role, reserved, -1)
        self._add(role, used, 1)
        self._longest[role] = max(self._longest[role], used[1])

    def _add(self, role: str, tokens: tuple[int, int], sign: int) -> None:
        self.tokens += sign * sum(tokens)
        self.cost += sign * (self._prices.cost(role, *tokens) or 0.0)


def _reached(key: str, limit: str, used: str, need: str) -> BudgetReached:
    return BudgetReached(
        f"{key}={limit} is reached: {used} used or under way in this run folder, the next call may need {need}",
        fix=f"every finished call is saved: give the same command again with a larger {key} to go on",
    )

"""The budget that ends a run: tokens and money of a run folder."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from pipeline.errors import PipelineError
from pipeline_sdg.calls.usage import Prices

_FIRST_GUESS = 500
"""Tokens of an answer before one is known."""


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
        self._under_way = 0
        self._settled = asyncio.Event()
        self._end: BudgetReached | None = None

    async def reserve(self, role: str, input_tokens: int, output_limit: int | None) -> tuple[int, int]:
        """Set aside what a call may need: its prompt, and an answer as long as the role's longest so far.

        Calls under way may need less than was set aside for them, so a call that does not fit waits for their ends.

        Raises:
            BudgetReached: a call does not fit, and none is under way any more. From then on every call gets it.
        """
        while True:
            if self._end:
                raise self._end
            need = input_tokens, min(self._longest[role], output_limit or self._longest[role])
            short = self._short(role, need)
            if not short:
                self._under_way += 1
                self._add(role, need, 1)
                return need
            if self._under_way:
                await self._settled.wait()
            else:
                self._end = short
                self._wake()

    def settle(self, role: str, reserved: tuple[int, int], used: tuple[int, int] = (0, 0)) -> None:
        """Put what was used in the place of what was set aside."""
        self._add(role, reserved, -1)
        self._add(role, used, 1)
        self._longest[role] = max(self._longest[role], used[1])
        self._under_way -= 1
        self._wake()

    def _wake(self) -> None:
        """Everybody who waits now looks again; who waits later waits for the next end."""
        self._settled.set()
        self._settled = asyncio.Event()

    def _short(self, role: str, need: tuple[int, int]) -> BudgetReached | None:
        """Why a call does not fit beside what is used and set aside."""
        cost = self._prices.cost(role, *need) or 0.0
        if self._max_tokens is not None and self.tokens + sum(need) > self._max_tokens:
            return _reached("max_tokens_total", f"{self._max_tokens:,}", f"{self.tokens:,} tokens", f"{sum(need):,}")
        if self._max_cost is not None and self.cost + cost > self._max_cost:
            return _reached("max_cost", f"{self._max_cost:g}", f"{self.cost:.4g}", f"{cost:.4g}")
        return None

    def _add(self, role: str, tokens: tuple[int, int], sign: int) -> None:
        self.tokens += sign * sum(tokens)
        self.cost += sign * (self._prices.cost(role, *tokens) or 0.0)


def _reached(key: str, limit: str, used: str, need: str) -> BudgetReached:
    return BudgetReached(
        f"{key}={limit} is reached: {used} used in this run folder, the next call may need {need}",
        fix=f"every finished call is saved: give the same command again with a larger {key} to go on",
    )

"""What a progress line says about the calls of its step: speed, failures, money."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from pipeline_sdg.calls.usage import RoleUsage, total_cost


class Meter:
    """Make one at the beginning of a step. `usage` is that of the caller, by role; it is only read."""

    def __init__(self, usage: Mapping[str, RoleUsage]) -> None:
        self._usage = usage
        self._begun = time.monotonic()
        self._tokens, self._failed = self._counts()

    def note(self) -> str:
        """Such as "88 tokens/s, 3 failed, 0.12 spent": tokens written and calls failed since the step began, money of
        the run so far. What is nothing is left out, so the note may be empty."""
        tokens, failed = self._counts()
        tokens, failed = tokens - self._tokens, failed - self._failed
        cost = total_cost(self._usage)
        parts = [f"{tokens / max(time.monotonic() - self._begun, 1e-9):,.0f} tokens/s"] if tokens else []
        parts += [f"{failed:,} failed"] if failed else []
        parts += [f"{money(cost)} spent"] if cost else []
        return ", ".join(parts)

    def _counts(self) -> tuple[int, int]:
        items = self._usage.values()
        return sum(item.output_tokens for item in items), sum(item.calls_failed for item in items)


def money(amount: float) -> str:
    """Two digits behind the point; of less than a hundredth the first two that are not zero: "1,234.50", "0.0012"."""
    digits = 2 if amount >= 0.01 or amount <= 0 else 1 - math.floor(math.log10(amount))
    return f"{amount:,.{digits}f}"

"""When an endpoint is taken for broken."""

from __future__ import annotations

from collections import deque

FAILURES_IN_A_ROW = 10
"""After so many failed calls without one success."""
WINDOW, FAILING_SHARE = 100, 0.5
"""Or when more than this share of the last calls failed."""


class Breaker:
    """Counts the ends of calls to one endpoint."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.proven = False
        """Whether any call ever got an answer."""
        self._last: deque[bool] = deque(maxlen=WINDOW)

    def succeeded(self) -> None:
        self.in_a_row = 0
        self.proven = True
        self._last.append(True)

    def failed(self) -> str | None:
        """Count a failure; returns why the endpoint is given up, or None."""
        self.in_a_row += 1
        self._last.append(False)
        if self.in_a_row >= FAILURES_IN_A_ROW:
            return f"{FAILURES_IN_A_ROW} calls in a row failed"
        failures = self._last.count(False)
        if len(self._last) == WINDOW and failures > WINDOW * FAILING_SHARE:
            return f"{failures} of the last {WINDOW} calls failed"
        return None

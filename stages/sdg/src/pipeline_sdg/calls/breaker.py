"""When an endpoint is taken for broken."""

from __future__ import annotations

from collections import deque

FAILURES_IN_A_ROW = 10
"""After so many failed calls without one success."""
FAILURES_AT_FIRST = 3
"""The same for an endpoint that never gave an answer: each of its calls took all its tries and time-outs."""
WINDOW, FAILING_SHARE = 100, 0.5
"""Or when more than this share of the last calls failed."""


class Breaker:
    """Counts the ends of calls to one endpoint."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.proven = False
        """Whether it ever answered anything, be it an error."""
        self._last: deque[bool] = deque(maxlen=WINDOW)

    def succeeded(self) -> None:
        self.in_a_row = 0
        self.proven = True
        self._last.append(True)

    def failed(self) -> str | None:
        """Count a failure; returns why the endpoint is given up, or None."""
        self.in_a_row += 1
        self._last.append(False)
        most = FAILURES_IN_A_ROW if self.proven else FAILURES_AT_FIRST
        if self.in_a_row >= most:
            return f"{most} calls in a row failed"
        failures = self._last.count(False)
        if len(self._last) == WINDOW and failures > WINDOW * FAILING_SHARE:
            return f"{failures} of the last {WINDOW} calls failed"
        return None

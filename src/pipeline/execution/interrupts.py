"""Ctrl-C, SIGTERM and a closed terminal while work runs elsewhere: each must find a moment to cancel it at."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(BaseException):
    """A signal asked us to stop. Not an `Exception`: nothing on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number
        """Our exit code: 130 for Ctrl-C, 143 for SIGTERM, 129 for a terminal that went away."""


class Interrupts:
    """Within `with Interrupts() as interrupts:` the signals raise `Interrupted`; within `held()` only at its end."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: int | None = None
        """A signal that came within `held()`."""
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def held(self) -> Iterator[None]:
        """For a step that must not be cut in two: what it started would be lost."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if (number := self._waiting) is not None:
            self._waiting = None
            raise Interrupted(number)

    def _on_signal(self, number: int, _: object) -> None:
        if not self._held:
            raise Interrupted(number)
        self._waiting = number

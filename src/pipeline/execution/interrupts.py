"""Ctrl-C and SIGTERM while work runs elsewhere: they must find a moment at which it can be cancelled."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(BaseException):
    """A signal asked us to stop. Not an `Exception`: nothing on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number
        """Our exit code: 130 for Ctrl-C, 143 for SIGTERM."""


class Interrupts:
    """Within `with Interrupts() as interrupts:` both signals raise `Interrupted`; within `held()` only at its end."""

    def __init__(self) -> None:
        self._held = False
        self._number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
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
        if self._number is not None:
            raise Interrupted(self._number)

    def _on_signal(self, number: int, _: object) -> None:
        self._number = number
        if not self._held:
            raise Interrupted(number)

"""Progress a person can read: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_EVERY_SECONDS = 10.0


class Progress:
    """Counts finished units. `note` is shown beside the count, for example the current loss."""

    def __init__(self, title: str, total: int, unit: str, bar: Any, logger: logging.Logger, done: int = 0) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._bar, self._logger = bar, logger
        self._task = bar.add_task(title, total=total, completed=done, note="") if bar else None
        self._start, self._first = time.monotonic(), done
        self._next_line = self._start + LINE_EVERY_SECONDS

    def advance(self, units: int = 1, note: str = "") -> None:
        self.done += units
        if self._bar:
            self._bar.update(self._task, advance=units, note=note)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_SECONDS
            self._logger.info(self.line(note))

    @property
    def rate(self) -> float:
        """Units per second since this progress began."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def line(self, note: str = "") -> str:
        share = f"{100 * self.done / self.total:.0f}%" if self.total else "-"
        left = (self.total - self.done) / self.rate if self.rate > 0 else 0
        text = f"{self.title}: {self.done}/{self.total} {self.unit} ({share}), {self.rate:.1f}/s, {duration(left)} left"
        return f"{text}, {note}" if note else text

    def finish(self) -> None:
        if not self._bar:
            seconds = time.monotonic() - self._start
            self._logger.info(f"{self.title}: {self.done} {self.unit} in {duration(seconds)} ({self.rate:.1f}/s)")


@contextmanager
def progress(title: str, total: int, unit: str = "items", done: int = 0) -> Iterator[Progress]:
    """Follow `total` units of work. `done` says how many were finished by an earlier run."""
    logger = logging.getLogger("pipeline")
    if not sys.stderr.isatty():
        shown = Progress(title, total, unit, None, logger, done)
        yield shown
        shown.finish()
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("left"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}"),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        yield Progress(title, total, unit, bar, logger, done)


def duration(seconds: float) -> str:
    """75 -> "1m15s"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"

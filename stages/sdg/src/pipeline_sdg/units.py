"""What is asked about: the corpus cut to passages once, kept on disk, and its windows by number."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.run.progress import progress
from pipeline.schemas.sdg import SdgConfig
from pipeline_sdg.bundles import Unit, make_unit, plan_bundles, windows_of_unit
from pipeline_sdg.chunking import Passage, Window, pairs_of, spread
from pipeline_sdg.documents import Survey
from pipeline_sdg.estimate import WindowSize
from pipeline_sdg.spool import Spool

_RECENT = 64
"""Units held in memory: the windows of one are asked about one after the other."""


class Units:
    """Every document or bundle of the corpus, in order, by number."""

    def __init__(self, found: Survey, config: SdgConfig, folder: Path) -> None:
        self._config, self._spool = config, Spool(folder)
        self._firsts = array("q", [0])
        self._sizes = array("q")
        names = [entry.path for entry in found.entries]
        bundles = plan_bundles(names, config, (document.text for document in found.documents()))
        with progress("cutting passages", len(bundles), "documents") as shown:
            for numbers in bundles:
                self._add(make_unit([found.document(number) for number in numbers], config))
                shown.advance()
        self._recent = lru_cache(_RECENT)(lambda number: _unpacked(self._spool[number]))
        self.windows_of = lru_cache(_RECENT)(lambda number: windows_of_unit(self[number], config))

    def _add(self, unit: Unit) -> None:
        self._spool.append(_packed(unit))
        windows = windows_of_unit(unit, self._config)
        self._firsts.append(self._firsts[-1] + len(windows))
        for window in windows:
            pairs = pairs_of(window, self._config.num_pairs, self._config.window_tokens)
            self._sizes.extend((len(window.text), len(window.passages), pairs))

    def __len__(self) -> int:
        return len(self._spool)

    def __getitem__(self, number: int) -> Unit:
        return self._recent(number)

    @property
    def windows(self) -> int:
        """Of all units together."""
        return self._firsts[-1]

    def window_numbers(self, number: int) -> range:
        """The numbers, in the whole corpus, of the windows of a unit."""
        return range(self._firsts[number], self._firsts[number + 1])

    def unit_of(self, window: int) -> int:
        """The number of the unit of a window."""
        return bisect_right(self._firsts, window) - 1

    @property
    def longest(self) -> tuple[str, int]:
        """(name, characters) of the unit with the longest window."""
        window = max(range(self.windows), key=lambda number: self._sizes[3 * number])
        return self[self.unit_of(window)].name, self._sizes[3 * window]

    def size_of(self, window: int) -> WindowSize:
        return WindowSize(*self._sizes[3 * window : 3 * window + 3])

    def passages(self) -> Iterator[tuple[str, str]]:
        """(title, text) of every passage of the corpus."""
        for values in self._spool:
            for passage in _unpacked(values).passages:
                yield passage.chunk.get("title", ""), passage.chunk["text"]


class Asked:
    """The units and windows that this run asks about: all, a spread of them (`max_windows`), a shard, or one."""

    def __init__(self, units: Units, config: SdgConfig) -> None:
        self._units = units
        part, parts = config.shard_of or (1, 1)
        chosen = spread(range(units.windows), config.max_windows)
        if config.preview:
            chosen = chosen[:1]
        self.units = [units.unit_of(chosen[0])] if config.preview else range(part - 1, len(units), parts)
        self._unit, self._window = array("q"), array("q")
        self._of: dict[int, range] = {}
        rest = iter(chosen)
        number = next(rest, None)
        for unit in range(len(units)):
            inside = units.window_numbers(unit)
            first = len(self._unit)
            while number is not None and number < inside.stop:
                if unit in self.units:
                    self._unit.append(unit)
                    self._window.append(number - inside.start)
                number = next(rest, None)
            self._of[unit] = range(first, len(self._unit))

    def __len__(self) -> int:
        return len(self._unit)

    def __getitem__(self, number: int) -> Window:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._units.windows_of(self._unit[number])[self._window[number]]

    def of_unit(self, unit: int) -> range:
        """The numbers of a unit's windows here."""
        return self._of[unit]

    def sizes(self) -> Iterator[WindowSize]:
        for unit, window in zip(self._unit, self._window, strict=True):
            yield self._units.size_of(self._units.window_numbers(unit).start + window)


def _packed(unit: Unit) -> list[Any]:
    passages = [[passage.chunk, passage.sentences] for passage in unit.passages]
    return [unit.files, unit.source_id, unit.bundle_id, unit.text, passages, unit.title]


def _unpacked(values: list[Any]) -> Unit:
    files, source_id, bundle_id, text, passages, title = values
    return Unit(
        files=tuple(files),
        source_id=source_id,
        bundle_id=bundle_id,
        text=text,
        passages=[Passage(chunk, tuple(sentences)) for chunk, sentences in passages],
        title=title,
    )

"""What `train_data_path` and `val_data_path` may say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError

HUB = "hf://"
_KEYS = {"path", "num_samples"}


@dataclass(frozen=True)
class Source:
    """One source: a local path or `hf://org/repo[/subset][@revision]`, and how many of its rows to draw (None: all)."""

    place: str
    num_samples: int | None = None

    @property
    def is_hub(self) -> bool:
        return self.place.startswith(HUB)


def parse_sources(spec: Any) -> list[Source]:
    """A path, `{path: …, num_samples: …}`, or a list of these.

    Raises:
        PipelineError: names the entry and what is wrong with it.
    """
    entries = spec if isinstance(spec, (list, tuple)) else [spec]
    if not entries:
        raise PipelineError("the list of data sources is empty", fix="name at least one file, folder or hf:// data set")
    return [_source(number, entry) for number, entry in enumerate(entries)]


def _source(number: int, entry: Any) -> Source:
    where = f"data source {number} ({entry!r})"
    fix = "write a path, or {path: PATH, num_samples: N}"
    if not isinstance(entry, dict):
        entry = {"path": entry}
    if unknown := sorted(str(name) for name in set(entry) - _KEYS):
        raise PipelineError(f"{where} has unknown keys: {', '.join(unknown)}", fix=fix)
    place, count = entry.get("path"), entry.get("num_samples")
    if not isinstance(place, str) or not place.strip():
        raise PipelineError(f"{where} needs a path, found {place!r}", fix=fix)
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise PipelineError(f"{where}: num_samples must be a whole number >= 1, found {count!r}", fix=fix)
    return Source(place, count)

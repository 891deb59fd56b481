"""What exactly was measured: enough to tell whether an earlier measurement is still true."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from pipeline.assets import resolve_model
from pipeline.records.beir import TestSet
from pipeline.records.passages import Passage
from pipeline.run.snapshot import sha256_of
from pipeline_eval import metrics

_MODEL_FILES = {".safetensors", ".bin", ".json", ".txt", ".model", ".py"}


@dataclass(frozen=True)
class Identity:
    """A system as a measurement saw it.

    `model` is its name for people; `content` stands for the weights and decides; `contract` is the digest of its
    encoding contract; `dtype` the number type it was computed in.
    """

    model: str
    content: str
    contract: str | None = None
    dtype: str | None = None

    def fingerprint(self, test_set_digest: str, k_values: list[int]) -> str:
        """16 hex digits that change when the numbers may change."""
        decisive = {name: value for name, value in asdict(self).items() if name != "model"}
        return _digest([json.dumps([decisive, test_set_digest, k_values, metrics.VERSION], sort_keys=True)])


class Searcher(Protocol):
    """A system that has read a corpus."""

    def search(self, queries: dict[str, str], k: int) -> metrics.Run: ...


class System(Protocol):
    """Anything that ranks the passages of a corpus for a question."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> Identity: ...

    def open(self, corpus: dict[str, Passage]) -> AbstractContextManager[Searcher]: ...


def model_content(reference: str, revision: str | None) -> str:
    """What a model's weights are: a hash over a folder's files, or id and revision of a hub model.

    A hub model without a pinned revision is taken to be what it was.
    """
    place = Path(resolve_model(reference))
    if not place.is_dir():
        return f"{reference}@{revision or 'main'}"
    files = sorted(item for item in place.rglob("*") if item.is_file() and item.suffix in _MODEL_FILES)
    return _digest(f"{item.relative_to(place)} {sha256_of(item)}" for item in files)


def digest_of(test_set: TestSet) -> str:
    """Changes with any question, passage or judgement; not with the set's name."""

    def lines() -> Iterator[str]:
        for item in test_set.corpus.values():
            yield json.dumps(["passage", item.id, item.title, item.text])
        for query, text in test_set.queries.items():
            yield json.dumps(["question", query, text, test_set.qrels[query]], sort_keys=True)

    return _digest(lines())


def _digest(lines: Iterable[str]) -> str:
    total = hashlib.sha256()
    for line in lines:
        total.update(line.encode() + b"\n")
    return total.hexdigest()[:16]

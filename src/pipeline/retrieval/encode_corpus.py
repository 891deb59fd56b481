"""Encode any number of texts into a `VectorStore`, shard by shard, each text once."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np

from pipeline.errors import PipelineError
from pipeline.retrieval.batching import padding_share, token_batches
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.vector_cache import in_use
from pipeline.retrieval.vector_store import StoredPassages, Texts, VectorStore, hashes_of
from pipeline.retrieval.world import World
from pipeline.run.progress import progress

log = logging.getLogger("pipeline")
_HASHED_AT_ONCE = 8192
_SHARD_CHARACTERS, _SHARD_TEXTS = 1_000_000, 50_000
"""A shard is what an interruption can lose: some 200,000 tokens, ten seconds on two cores."""


@dataclass(frozen=True)
class Batches:
    """How texts are put together for the model: at most `tokens` (padding included) and `texts` in one batch."""

    tokens: int = 16384
    texts: int | None = None


def encode_corpus(
    encoder: BiEncoder,
    store: VectorStore,
    kind: str,
    count: int,
    texts: Texts,
    batches: Batches,
    world: World | None = None,
) -> StoredPassages:
    """The vectors of texts 0..count-1, encoded where `store` lacks them.

    Texts are sorted by length and cut into shards; of several processes each encodes every `size`-th shard.

    Raises:
        PipelineError: the model gives a vector that is not finite.
    """
    with in_use(store.folder.parent):
        return _encoded(encoder, store, kind, count, texts, batches, world or World())


def _encoded(
    encoder: BiEncoder, store: VectorStore, kind: str, count: int, texts: Texts, batches: Batches, world: World
) -> StoredPassages:
    hashes, sizes = _hashes(count, texts)
    distinct = np.unique(hashes, return_index=True)[1]
    shards = _shards(distinct[np.argsort(-sizes[distinct], kind="stable")], sizes)
    # As the first process sees it: another one may look when some shards are finished already.
    missing = world.share(store.missing(kind, hashes))
    todo = [shard[missing[shard]] for shard in shards]
    todo = [shard for shard in todo if len(shard)][world.rank :: world.size]
    wanted = sum(map(len, todo))
    if world.leads and len(distinct) > missing[distinct].sum():
        log.info(
            f"{len(distinct) - int(missing[distinct].sum()):,} of {len(distinct):,} {kind} vectors are there already"
        )
    if todo:
        work = _Work(encoder, kind, batches)
        with progress(f"encoding ({kind})", wanted, "texts") as bar:
            for shard in todo:
                store.add(kind, hashes[shard], work.encode(texts(shard), bar.advance))
        work.report()
    world.wait()
    return store.open(kind, hashes)


def _hashes(count: int, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Hash (S16) and length in characters (int64) of every text."""
    hashes, sizes = np.empty(count, "S16"), np.empty(count, np.int64)
    for start in range(0, count, _HASHED_AT_ONCE):
        numbers = np.arange(start, min(start + _HASHED_AT_ONCE, count))
        held = texts(numbers)
        hashes[numbers] = hashes_of(held)
        sizes[numbers] = [len(text) for text in held]
    return hashes, sizes


def _shards(order: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """`order` cut where a shard is full. All texts count, encoded or not: shards stay the same."""
    number = np.maximum(np.cumsum(sizes[order]) // _SHARD_CHARACTERS, np.arange(len(order)) // _SHARD_TEXTS)
    return np.split(order, np.flatnonzero(np.diff(number)) + 1) if len(order) else []


class _Work:
    """Encodes and keeps count."""

    def __init__(self, encoder: BiEncoder, kind: str, batches: Batches) -> None:
        self.encoder, self.kind, self.batches = encoder, kind, batches
        self.begun = time.monotonic()
        self.texts = self.tokens = self.cut = 0
        self.computed = 0.0

    def encode(self, texts: list[str], advance) -> np.ndarray:
        tokens = self.encoder.tokenize(texts, self.kind)
        lengths = [len(item) for item in tokens]
        budget = self.batches
        padding = padding_share(lengths, token_batches(lengths, budget.tokens, budget.texts))
        self.texts += len(texts)
        self.tokens += sum(lengths)
        self.computed += sum(lengths) / (1 - padding)
        self.cut += sum(length >= self.encoder.contract.max_length(self.kind) for length in lengths)
        vectors = self.encoder.encode_tokens(
            tokens, self.kind, batch_tokens=budget.tokens, batch_texts=budget.texts, on_batch=advance
        )
        broken = np.flatnonzero(~np.isfinite(vectors).all(1))
        if len(broken):
            first = texts[broken[0]][:80]
            raise PipelineError(
                f"the model gives no finite vector for {len(broken)} {self.kind} texts, first: {first!r}",
                fix="set precision=fp32, or look at that text",
            )
        return vectors

    def report(self) -> None:
        seconds = max(time.monotonic() - self.begun, 1e-9)
        log.info(
            f"encoded {self.texts:,} {self.kind} texts, {self.tokens:,} tokens, {self.texts / seconds:,.0f} texts/s, "
            f"padding {1 - self.tokens / max(self.computed, 1):.1%}, at the length limit {self.cut:,}"
        )

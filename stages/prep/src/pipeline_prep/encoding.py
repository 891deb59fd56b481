"""The mining model, and every text through it once; vectors are kept between runs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract
from pipeline.retrieval.attention import plain_attention_is_faster, use_plain_attention
from pipeline.retrieval.encode_corpus import Batches, encode_corpus
from pipeline.retrieval.encoder import BiEncoder, tokenizer_hash
from pipeline.retrieval.hardware import pick_dtype
from pipeline.retrieval.text_ends import set_text_ends
from pipeline.retrieval.transformer import LoadOptions, ModelFiles, load_tokenizer, readable_errors
from pipeline.retrieval.vector_store import StoredPassages, VectorStore, store_key
from pipeline.retrieval.world import World

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Tokens:
    """Another tokenizer than the model's own, and whether texts begin and end with its special tokens (None: as is)."""

    tokenizer: str | None = None
    bos: bool | None = None
    eos: bool | None = None


@dataclass(frozen=True)
class Model:
    """What to load and how to compute."""

    reference: str
    contract: EncodingContract
    options: LoadOptions
    device: torch.device
    precision: str
    tokens: Tokens = field(default_factory=Tokens)

    def load(self) -> BiEncoder:
        self.contract.need_one_vector(self.reference)
        dtype = pick_dtype(self.precision, self.device)
        encoder = BiEncoder.load(self.reference, self.contract, device=self.device, dtype=dtype, options=self.options)
        if self.tokens != Tokens():
            self._settle_tokenizer(encoder)
        if plain_attention_is_faster(self.device, dtype) and not self.options.attn_implementation:
            use_plain_attention(encoder.model)
        log.info(f"model {self.reference} on {self.device} in {encoder.contract.dtype}")
        return encoder

    def _settle_tokenizer(self, encoder: BiEncoder) -> None:
        if self.tokens.tokenizer:
            place = resolve_model(self.tokens.tokenizer)
            with readable_errors(self.tokens.tokenizer):
                files = ModelFiles(self.tokens.tokenizer, place, {}, None)  # a tokenizer needs no config.json
                encoder.tokenizer = load_tokenizer(files, LoadOptions())
        set_text_ends(encoder.tokenizer, self.tokens.bos, self.tokens.eos)
        encoder.contract = encoder.contract.with_(tokenizer_hash=tokenizer_hash(encoder.tokenizer))


@dataclass(frozen=True)
class Keep:
    """Where vectors are kept and how texts are put together for the model."""

    folder: Path
    queries: Batches = field(default_factory=Batches)
    passages: Batches = field(default_factory=Batches)
    fresh_for: str | None = None
    """Encode everything anew for this output: only what an interrupted run for the same one left still counts."""


@dataclass(frozen=True)
class Encoded:
    """queries: fp32 [Q, D]. passages: as many as the corpus has rows. contract: under which they were made."""

    queries: np.ndarray
    passages: StoredPassages
    contract: EncodingContract
    store: VectorStore
    shared: VectorStore

    def finish(self) -> None:
        """Give what was encoded anew to all later runs."""
        if self.store.folder != self.shared.folder:
            self.store.publish(self.shared)


def encode(
    encoder: BiEncoder, model: Model, corpus: pa.Table, questions: Sequence[str], keep: Keep, world: World
) -> Encoded:
    """Encode the whole corpus (columns text and title) and the questions under the encoder's contract.

    Raises:
        PipelineError: the model gives a vector that is not finite.
    """
    contract = encoder.contract
    key = store_key(encoder, model.reference, model.options.revision)
    shared = VectorStore(keep.folder, key, contract.normalize)
    own = f".fresh-{hashlib.sha256(keep.fresh_for.encode()).hexdigest()[:16]}" if keep.fresh_for else ""
    store = VectorStore(keep.folder / own, key, contract.normalize)
    if world.leads:
        store.sweep()
    world.wait()

    def passage_texts(numbers: np.ndarray) -> list[str]:
        rows = corpus.take(numbers)
        pairs = zip(rows["text"].to_pylist(), rows["title"].to_pylist(), strict=True)
        return [contract.format_passage(text, title or "") for text, title in pairs]

    def query_texts(numbers: np.ndarray) -> list[str]:
        return [contract.format_query(questions[number]) for number in numbers]

    passages = encode_corpus(encoder, store, "passage", len(corpus), passage_texts, keep.passages, world)
    queries = encode_corpus(encoder, store, "query", len(questions), query_texts, keep.queries, world)
    return Encoded(queries.take(np.arange(len(questions))), passages, contract, store, shared)

"""The mining model, and every text through it once; vectors are kept between runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.contract import EncodingContract
from pipeline.retrieval.attention import use_plain_attention
from pipeline.retrieval.encode_corpus import Batches, encode_corpus
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.hardware import pick_dtype
from pipeline.retrieval.transformer import LoadOptions
from pipeline.retrieval.vector_store import StoredPassages, VectorStore, store_key
from pipeline.retrieval.world import World

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Model:
    """What to load and how to compute."""

    reference: str
    contract: EncodingContract
    options: LoadOptions
    device: torch.device
    precision: str

    def load(self) -> BiEncoder:
        self.contract.need_one_vector(self.reference)
        dtype = pick_dtype(self.precision, self.device)
        encoder = BiEncoder.load(self.reference, self.contract, device=self.device, dtype=dtype, options=self.options)
        if self.device.type == "cpu" and not self.options.attn_implementation and dtype == torch.bfloat16:
            use_plain_attention(encoder.model)
        log.info(f"model {self.reference} on {self.device} in {encoder.contract.dtype}")
        return encoder


@dataclass(frozen=True)
class Keep:
    """Where vectors are kept and how texts are put together for the model."""

    folder: Path
    queries: Batches = field(default_factory=Batches)
    passages: Batches = field(default_factory=Batches)


@dataclass(frozen=True)
class Encoded:
    """queries: fp32 [Q, D]. passages: as many as the corpus has rows. contract: under which they were made."""

    queries: np.ndarray
    passages: StoredPassages
    contract: EncodingContract


def encode(
    encoder: BiEncoder, model: Model, corpus: pa.Table, questions: Sequence[str], keep: Keep, world: World
) -> Encoded:
    """Encode the whole corpus (columns text and title) and the questions under the encoder's contract.

    Raises:
        PipelineError: the model gives a vector that is not finite.
    """
    contract = encoder.contract
    store = VectorStore(keep.folder, store_key(encoder, model.reference, model.options.revision), contract.normalize)

    def passage_texts(numbers: np.ndarray) -> list[str]:
        rows = corpus.take(numbers)
        pairs = zip(rows["text"].to_pylist(), rows["title"].to_pylist(), strict=True)
        return [contract.format_passage(text, title or "") for text, title in pairs]

    def query_texts(numbers: np.ndarray) -> list[str]:
        return [contract.format_query(questions[number]) for number in numbers]

    passages = encode_corpus(encoder, store, "passage", len(corpus), passage_texts, keep.passages, world)
    queries = encode_corpus(encoder, store, "query", len(questions), query_texts, keep.queries, world)
    return Encoded(queries.take(np.arange(len(questions))), passages, contract)

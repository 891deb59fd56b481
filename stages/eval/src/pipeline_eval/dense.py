"""A bi-encoder under its own contract: the corpus is encoded once, then every test set over it is searched."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.passages import Passage
from pipeline.retrieval.encoder import BiEncoder, LoadOptions
from pipeline.run.progress import progress
from pipeline_eval.identity import Identity
from pipeline_eval.vectors import VectorIndex, stored


@dataclass(frozen=True)
class Compute:
    """Where and how vectors are computed."""

    device: torch.device
    dtype: torch.dtype
    batch_tokens: int
    corpus_chunk_size: int
    scratch: Path


@dataclass(frozen=True)
class DenseSystem:
    """The base or the tuned model.

    `reference` is a hub id, a folder or an `embedded:` model; `content` stands for its weights (`model_content`).
    """

    name: str
    reference: str
    content: str
    contract: EncodingContract
    options: LoadOptions
    compute: Compute

    @property
    def identity(self) -> Identity:
        return Identity(
            model=self.reference,
            content=self.content,
            contract=self.contract.digest(),
            dtype=str(self.compute.dtype).removeprefix("torch."),
        )

    @contextmanager
    def open(self, corpus: dict[str, Passage]) -> Iterator[VectorIndex]:
        """Load the model and encode the corpus; the model's memory is given back at the end."""
        compute = self.compute
        contract = self.contract.need_one_vector(self.reference)
        model = BiEncoder.load(
            self.reference, contract, device=compute.device, dtype=compute.dtype, options=self.options
        )
        try:
            yield VectorIndex(
                list(corpus),
                self._encode_corpus(model, list(corpus.values())),
                lambda texts: model.encode_queries(texts, batch_tokens=compute.batch_tokens),
                passage_block=compute.corpus_chunk_size,
                device=compute.device,
            )
        finally:
            model.to("meta")  # frees the weights even while the index still holds the model
            gc.collect()
            if compute.device.type == "cuda":
                torch.cuda.empty_cache()

    def _encode_corpus(self, model: BiEncoder, passages: list[Passage]) -> np.ndarray:
        """Vectors of all passages [passages, dimension], encoded in chunks."""
        compute, begin = self.compute, time.monotonic()

        def parts() -> Iterator[np.ndarray]:
            for start in range(0, len(passages), compute.corpus_chunk_size):
                chunk = passages[start : start + compute.corpus_chunk_size]
                yield model.encode_passages(
                    [item.text for item in chunk],
                    [item.title for item in chunk],
                    batch_tokens=compute.batch_tokens,
                    on_batch=shown.advance,
                )

        with progress(f"{self.name}: passages", len(passages), "texts") as shown:
            try:
                vectors = stored(parts(), len(passages), compute.scratch)
            except PipelineError as error:
                raise PipelineError(f"{self.reference}: {error.message}", fix=error.fix) from error
        seconds = time.monotonic() - begin
        logging.getLogger("pipeline").info(
            f"{self.name}: {len(passages)} passages encoded, {len(passages) / max(seconds, 1e-9):.0f} texts/s "
            f"({self.identity.dtype} on {compute.device})"
        )
        return vectors

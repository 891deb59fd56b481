"""A served embedding model as a system: the corpus is embedded over HTTP and searched here."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.contract import EncodingContract
from pipeline.records.passages import Passage
from pipeline.records.results import Facts
from pipeline.run.progress import progress
from pipeline_eval.endpoints.clients import EmbeddingClient
from pipeline_eval.identity import Identity
from pipeline_eval.vectors import VectorIndex, stored


@dataclass(frozen=True)
class ServedEmbedder:
    """It is always measured anew: what runs behind an address cannot be known from here.

    `checkpoint` is the content of the tuned model of this run: the measurement is dropped when that changes.
    """

    client: EmbeddingClient
    corpus_chunk_size: int
    checkpoint: str
    scratch: Path
    name: str = "nim"

    @property
    def identity(self) -> Identity:
        return Identity(f"{self.client.model} at {self.client.url}", self.checkpoint)

    @contextmanager
    def open(self, corpus: dict[str, Passage]) -> Iterator[VectorIndex]:
        plain = EncodingContract()  # title and text are joined as everywhere; prefixes are the client's concern
        texts = [plain.format_passage(item.text, item.title) for item in corpus.values()]
        begin = time.monotonic()
        with progress(f"{self.name}: passages", len(texts), "texts") as shown:
            chunks = (
                texts[start : start + self.corpus_chunk_size] for start in range(0, len(texts), self.corpus_chunk_size)
            )
            parts = (self.client.embed(chunk, "passage", shown.advance) for chunk in chunks)
            vectors = stored(parts, len(texts), self.scratch)
        rate = len(texts) / max(time.monotonic() - begin, 1e-9)
        logging.getLogger("pipeline").info(f"{self.name}: {len(texts)} passages encoded over HTTP, {rate:.0f} texts/s")
        yield VectorIndex(
            list(corpus),
            vectors,
            lambda queries: self.client.embed(queries, "query"),
            passage_block=self.corpus_chunk_size,
            device="cpu",
            facts=Facts(vector_bytes=vectors.itemsize * vectors.shape[1], texts=len(texts)),
        )

"""A bi-encoder under its own contract: the corpus is encoded once, then every test set over it is searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.passages import Passage
from pipeline.records.results import Facts
from pipeline.retrieval.batching import token_batches
from pipeline.retrieval.encode_corpus import Batches, encode_corpus
from pipeline.retrieval.encoder import BiEncoder, LoadOptions
from pipeline.retrieval.vector_store import StoredPassages, Texts, VectorStore, store_key
from pipeline_eval.crew import shared_out
from pipeline_eval.identity import Identity
from pipeline_eval.loaded import Compute, count_too_long, released, weights_mb
from pipeline_eval.vectors import VectorIndex


@dataclass(frozen=True)
class DenseSystem:
    """An embedding model, before or after training, or as the first stage of a reranker.

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
        return Identity(self.reference, self.content, self.contract.digest(), self.compute.dtype_name)

    @contextmanager
    def open(self, corpus: dict[str, Passage]) -> Iterator[VectorIndex]:
        """Load the model and encode the corpus, less what an earlier run encoded."""
        compute = self.compute
        contract = self.contract.need_one_vector(self.reference)
        loaded = BiEncoder.load(
            self.reference, contract, device=compute.device, dtype=compute.dtype, options=self.options
        )
        for body in filter(None, (loaded.model, loaded.query_model)):
            compute.suit(body, self.options)
        passages = list(corpus.values())

        def texts(numbers: np.ndarray) -> list[str]:
            return [contract.format_passage(passages[number].text, passages[number].title) for number in numbers]

        with released(loaded) as model:
            limit = contract.max_length("passage")
            yield VectorIndex(
                list(corpus),
                self._vectors(model, len(passages), texts),
                lambda queries: _encoded_queries(model, queries, compute),
                passage_block=compute.chunk,
                device=compute.device,
                world=compute.world,
                facts=Facts(
                    size_mb=weights_mb(model),
                    vector_bytes=4 * (model.contract.dimension or 0),
                    texts=len(passages),
                    cut=count_too_long(model.tokenizer, texts, len(passages), limit, compute.world),
                    max_length=limit,
                ),
            )

    def _vectors(self, model: BiEncoder, count: int, texts: Texts) -> StoredPassages:
        # Kept in fp32 whatever prep would do: rounding to fp16 is small, but a measurement has no need of it.
        key = store_key(model, self.reference, self.options.revision) | {"kept": "float32"}
        store = VectorStore(self.compute.cache, key, normalized=False)
        world = self.compute.world
        if world.leads:
            store.sweep()
        try:
            return encode_corpus(model, store, "passage", count, texts, Batches(self.compute.batch_tokens), world)
        except PipelineError as error:
            raise PipelineError(f"{self.reference}: {error.message}", fix=error.fix) from error


def _encoded_queries(model: BiEncoder, queries: Sequence[str], compute: Compute) -> np.ndarray:
    """Vectors of raw questions, fp32 [n, D]. Never kept: how long this takes is part of what is measured.

    Processes share out the batches that a single one would make, so that all get the vectors it would get.
    """
    tokens = model.tokenize([model.contract.format_query(query) for query in queries], "query")
    batches = token_batches([len(item) for item in tokens], compute.batch_tokens)

    def encode(batch: list[int]) -> np.ndarray:
        return model.encode_tokens([tokens[item] for item in batch], "query", batch_tokens=compute.batch_tokens)

    vectors = np.empty((len(tokens), model.contract.dimension or 0), np.float32)
    for batch, found in zip(batches, shared_out(batches, compute.world, encode), strict=True):
        vectors[batch] = found
    return vectors

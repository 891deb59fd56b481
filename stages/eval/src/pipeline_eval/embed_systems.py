"""The systems of the embedding family."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.assets import model_content, resolve_model
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.encoder import LoadOptions
from pipeline.schemas.eval import EmbedEvalConfig
from pipeline_eval.dense import DenseSystem
from pipeline_eval.endpoints.clients import embedding_client
from pipeline_eval.endpoints.embedding import ServedEmbedder
from pipeline_eval.identity import System
from pipeline_eval.rerank import RerankSystem
from pipeline_eval.systems import SystemMaker, carried_contract
from pipeline_eval.variants import SharedDense, VariantSystem, dimension_of
from pipeline_eval.vector_forms import check_dims, form_named

logger = logging.getLogger("pipeline")


@dataclass
class EmbedSystems(SystemMaker):
    """Base and tuned embedding model, a served one, and a reranker over the tuned one's candidates."""

    config: EmbedEvalConfig

    def __post_init__(self) -> None:
        length = self.config.max_length
        if length is not None:
            self.config = replace(self.config, query_max_length=length, passage_max_length=length)

    @property
    def dense(self) -> str:
        return "finetuned" if self.has_finetuned else "base"

    @property
    def candidates(self) -> tuple[str, int] | None:
        return (self.source, self.config.top_k) if self.config.reranker_model else None

    def untoggled(self) -> list[str]:
        if not getattr(self.config, f"eval_{self.dense}"):
            if self.variants:
                logger.warning(f"dims and quantized are of {self.dense}, which eval_{self.dense}=false leaves out")
            return []
        if self.config.dims:
            model = self.make(self.dense)
            check_dims(self.config.dims, dimension_of(model), model.reference)  # before any long work
        return [*self.variants, *(["reranked"] if self.candidates else [])]

    def own_builders(self) -> dict[str, Callable[[], System]]:
        found = {"base": self._base, "finetuned": self._finetuned}
        found |= {name: partial(self._variant, form) for name, form in self.variants.items()}
        return {**found, "reranked": self._reranked} if self.candidates else found

    def _base(self) -> DenseSystem:
        reference, revision = self.config.base_model, self.config.base_model_revision
        own = EncodingContract.load(Path(resolve_model(reference)))
        contract = self._checked(own, reference) if own else EncodingContract.from_config(self.config)
        content = model_content(reference, revision)
        return self._embedder("base", reference, content, contract, self.options(revision))

    def _finetuned(self) -> DenseSystem:
        folder = str(self.finetuned_folder)
        own = self.finetuned_contract("embed", EncodingContract.from_config(self.config))
        contract = self._checked(own, folder)
        return self._embedder("finetuned", folder, self.finetuned_content, contract, self.options(None))

    def _embedder(
        self, name: str, reference: str, content: str, contract: EncodingContract, options: LoadOptions
    ) -> DenseSystem:
        kind = SharedDense if self.variants and name == self.dense else DenseSystem
        return kind(name, reference, content, contract, options, self.compute)

    def _variant(self, form: str) -> VariantSystem:
        source = self.make(self.dense)
        return VariantSystem(source, form_named(form, source.contract.normalize))

    def service(self, system: str, name: str) -> ServedEmbedder:
        taken_for = self.make(self.dense)  # the prefixes, where the service does not put them itself, are this model's
        client = embedding_client(self.config, self.start_hint, taken_for.contract, name)
        return ServedEmbedder(client, self.config.corpus_chunk_size, self.finetuned_content, self.scratch, system)

    def _reranked(self) -> RerankSystem:
        reference = str(self.config.reranker_model)
        own = carried_contract(reference)
        if own is not None and own.family != "rerank":
            raise PipelineError(f"reranker_model: {reference} is an embedding model", fix="name a reranker, or null")
        if own is None:
            logger.warning(f"{reference} carries no contract: pairs of at most 512 tokens in its tokenizer's own form")
            own = EncodingContract("rerank", reference, rerank_max_length=512)
        return self.reranker("reranked", reference, model_content(reference, None), own, self.safe_options)

    def _checked(self, contract: EncodingContract, source: str) -> EncodingContract:
        self.check_said("max_length", {contract.query_max_length, contract.passage_max_length}, source)
        return contract.under(self.config, self.command_line, source)

"""The systems of the reranking family."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from pipeline.assets import model_content
from pipeline.checkpoints import existing_model
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.schemas.eval import RerankEvalConfig
from pipeline_eval.dense import DenseSystem
from pipeline_eval.endpoints.clients import ranking_client
from pipeline_eval.endpoints.ranking import ServedReranker
from pipeline_eval.identity import System
from pipeline_eval.rerank import RerankSystem
from pipeline_eval.systems import SystemMaker, carried_contract

logger = logging.getLogger("pipeline")


@dataclass
class RerankSystems(SystemMaker):
    """The first stage alone, and what base and tuned reranker make of its candidates."""

    config: RerankEvalConfig

    @property
    def dense(self) -> str:
        return "retriever"

    @property
    def candidates(self) -> tuple[str, int]:
        return self.source, self.config.top_k

    @cached_property
    def first_stage(self) -> str:
        """`retrieval_model`; where that is a folder that training has not made, the model before its training.

        Raises:
            PipelineError: the folder does not exist, and no other model is named.
        """
        config, insist = self.config, "retrieval_model" in self.command_line
        return existing_model("retrieval_model", config.retrieval_model, config.base_retrieval_model, insist)

    @property
    def _before(self) -> str | None:
        """The first stage before its training, if that is another model."""
        before = self.config.base_retrieval_model
        return before if before != self.first_stage else None

    def untoggled(self) -> list[str]:
        return ["retriever", *(["base_retriever"] if self._before else [])]

    def own_builders(self) -> dict[str, Callable[[], System]]:
        found = {
            "retriever": lambda: self._first_stage("retriever", self.first_stage),
            "base": self._base,
            "finetuned": self._finetuned,
        }
        before = self._before
        return {**found, "base_retriever": lambda: self._first_stage("base_retriever", before)} if before else found

    def _first_stage(self, name: str, reference: str) -> DenseSystem:
        """An embedding model under the contract it carries, else under the keys of the first stage."""
        own = carried_contract(reference)
        if own is not None and own.family != "embed":
            raise PipelineError(f"{name}: {reference} is a reranker", fix="name an embedding model as first stage")
        config = self.config
        contract = own or EncodingContract(
            base_model=reference,
            query_prefix=config.query_prefix,
            passage_prefix=config.passage_prefix,
            query_max_length=config.retrieval_max_length,
            passage_max_length=config.retrieval_max_length,
            normalize=config.retrieval_normalize,
        )
        if own and name == "retriever":
            # What a person says of the first stage is about this one; the model before its training may differ.
            own.under(config, self.command_line & {"query_prefix", "passage_prefix"}, reference)
            self.check_said("retrieval_max_length", {own.query_max_length, own.passage_max_length}, reference)
            self.check_said("retrieval_normalize", {own.normalize}, reference)
        return DenseSystem(name, reference, model_content(reference, None), contract, self.safe_options, self.compute)

    def _base(self) -> RerankSystem:
        reference, revision = self.config.base_model, self.config.base_model_revision
        own = carried_contract(reference)
        contract = self._checked(own, reference) if own and own.family == "rerank" else self._configured
        return self.reranker("base", reference, model_content(reference, revision), contract, self.options(revision))

    def _finetuned(self) -> RerankSystem:
        folder = str(self.finetuned_folder)
        contract = self._checked(self.finetuned_contract("rerank", self._configured), folder)
        return self.reranker("finetuned", folder, self.finetuned_content, contract, self.options(None))

    def service(self, system: str, name: str) -> ServedReranker:
        client = ranking_client(self.config, self.start_hint, name)
        source, top_k = self.candidates
        first = self.make(source).identity
        chunk = self.config.corpus_chunk_size
        return ServedReranker(client, self.finetuned_content, source, first, top_k, chunk, system)

    @property
    def _configured(self) -> EncodingContract:
        config = self.config
        return EncodingContract(
            "rerank",
            config.base_model,
            config.base_model_revision,
            prompt_template=config.prompt_template,
            pooling=config.pooling,
            rerank_max_length=config.max_length,
        )

    def _checked(self, contract: EncodingContract, source: str) -> EncodingContract:
        self.check_said("max_length", {contract.max_length("pair")}, source)
        return contract.under(self.config, self.command_line, source)

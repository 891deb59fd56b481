"""What differs between serving a bi-encoder and a cross-encoder: the model, the routes, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.contract import EncodingContract
from pipeline.retrieval.onnx_encoder import OnnxEncoder
from pipeline.retrieval.onnx_scorer import OnnxScorer
from pipeline_deploy import embeddings, ranking
from pipeline_deploy.serving import Route


@dataclass(frozen=True)
class ServedFamily:
    """One family's parts. `sample` gives the fields of a request to `routes[0]`, less the model's name."""

    name: str
    gives: str
    routes: tuple[Route, ...]
    load: Callable[[Path, int | None], Any]
    warm_up: Callable[[Any], Any]
    contract_facts: Callable[[EncodingContract], dict[str, Any]]
    sample: dict[str, Any]

    @property
    def offer(self) -> str:
        """What the server does, in words."""
        return f"this server gives {self.gives}: POST {', '.join(route.path for route in self.routes)}"


def _embed_facts(contract: EncodingContract) -> dict[str, Any]:
    return {
        "dimension": contract.dimension,
        "query_max_length": contract.query_max_length,
        "passage_max_length": contract.passage_max_length,
        "normalized": contract.normalize,
    }


def _rerank_facts(contract: EncodingContract) -> dict[str, Any]:
    return {"rerank_max_length": contract.max_length("pair"), "prompt_template": contract.prompt_template}


EMBED = ServedFamily(
    name="embed",
    gives="embeddings",
    routes=embeddings.ROUTES,
    load=OnnxEncoder.load,
    warm_up=lambda encoder: encoder.forward(encoder.tokenize(["warm up"], "query")),
    contract_facts=_embed_facts,
    sample={"input": ["What does alarm E-104 mean?"], "input_type": "query"},
)
RERANK = ServedFamily(
    name="rerank",
    gives="rankings",
    routes=ranking.ROUTES,
    load=OnnxScorer.load,
    warm_up=lambda scorer: scorer.forward(scorer.tokenize([("warm", "up")])),
    contract_facts=_rerank_facts,
    sample={
        "query": {"text": "What does alarm E-104 mean?"},
        "passages": [{"text": "E-104: the sieve column is blocked."}, {"text": "The canteen opens at noon."}],
    },
)
SERVED = {family.name: family for family in (EMBED, RERANK)}

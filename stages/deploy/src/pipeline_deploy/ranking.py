"""Passages scored for a query over HTTP, in the three forms that clients of rerankers speak.

NIM: https://docs.nvidia.com/nim/nemo-retriever/text-reranking/latest/reference.html
Cohere: https://docs.cohere.com/reference/rerank (Jina's is the same but for `return_documents` and `usage`)
Text Embeddings Inference: https://huggingface.github.io/text-embeddings-inference/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import uuid4

import numpy as np
from fastapi import Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from pipeline.retrieval.onnx_session import Truncate
from pipeline_deploy.api import json_reply, not_empty, wrong_model
from pipeline_deploy.serving import Route, Serving
from pipeline_deploy.tei import TeiCut


def _text_of(value: Any) -> Any:
    if isinstance(value, dict) and "text" not in value:
        raise ValueError("an object needs the field `text`")
    return value["text"] if isinstance(value, dict) else value


Text = Annotated[str, BeforeValidator(_text_of, json_schema_input_type=str | dict[str, str])]
"""A text, or an object with it as NIM and Jina write it."""
Query = Annotated[Text, AfterValidator(not_empty)]
Passages = Annotated[list[Text], AfterValidator(not_empty)]


class RankingRequest(BaseModel):
    """Body of POST /v1/ranking (NIM)."""

    model: str = Field(description="The served model's name.")
    query: Query = Field(description='The question: {"text": "…"}.')
    passages: Passages = Field(description='What is ranked: [{"text": "…"}, …].')
    truncate: Truncate = Field("END", description="Pairs that are too long: refuse, or cut the passage's start or end.")


class RerankRequest(BaseModel):
    """Body of POST /v1/rerank and /v2/rerank (Cohere, Jina)."""

    model: str = Field(description="The served model's name.")
    query: Query = Field(description="The question.")
    documents: Passages = Field(description='Texts, or objects {"text": "…"}; other fields of an object are not read.')
    top_n: int | None = Field(None, ge=1, description="How many of the best to return. Without it: all.")
    return_documents: bool = Field(False, description="Return the texts too.")


class TeiRequest(TeiCut):
    """Body of POST /rerank (Text Embeddings Inference)."""

    query: Query = Field(description="The question.")
    texts: Passages = Field(description="What is ranked.")
    raw_scores: bool = Field(False, description="Logits instead of values between 0 and 1.")
    return_text: bool = Field(False, description="Return the texts too.")


@dataclass(frozen=True)
class Ranked:
    """Logits fp32 [passages], the passages' indices from the best to the worst, and the tokens that it took."""

    logits: np.ndarray
    order: list[int]
    tokens: int

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": self.tokens, "total_tokens": self.tokens}

    @property
    def relevance(self) -> np.ndarray:
        """The logits' sigmoid: fp32 [passages], between 0 and 1."""
        return np.exp(-np.logaddexp(0.0, -self.logits.astype(np.float64))).astype(np.float32)


async def rank(request: RankingRequest, serving: Serving) -> Response:
    """NIM's reply."""
    _check_model(request.model, serving)
    ranked = await _ranked(serving, request.query, request.passages, request.truncate, "passages")
    rankings = [{"index": index, "logit": ranked.logits[index]} for index in ranked.order]
    return json_reply({"rankings": rankings, "usage": ranked.usage})


async def rerank(request: RerankRequest, serving: Serving) -> Response:
    """Cohere's and Jina's reply: `meta` is the one's, `usage` the other's."""
    _check_model(request.model, serving)
    ranked = await _ranked(serving, request.query, request.documents, "END", "documents")
    scores, results = ranked.relevance, []
    for index in ranked.order[: request.top_n]:
        document = {"document": {"text": request.documents[index]}} if request.return_documents else {}
        results.append({"index": index, "relevance_score": scores[index], **document})
    meta = {"api_version": {"version": "2"}, "tokens": {"input_tokens": ranked.tokens}}
    reply = {"id": str(uuid4()), "model": request.model, "results": results, "meta": meta, "usage": ranked.usage}
    return json_reply(reply)


async def rerank_tei(request: TeiRequest, serving: Serving) -> Response:
    """The reply of Text Embeddings Inference: a bare list."""
    ranked = await _ranked(serving, request.query, request.texts, request.cut, "texts")
    scores = ranked.logits if request.raw_scores else ranked.relevance
    texts = {index: {"text": request.texts[index]} for index in ranked.order} if request.return_text else {}
    return json_reply([{"index": index, "score": scores[index], **texts.get(index, {})} for index in ranked.order])


async def _ranked(serving: Serving, query: str, passages: list[str], truncate: Truncate, field: str) -> Ranked:
    """Score every passage; the best first, equal ones in the request's order."""
    scorer = serving.model
    pairs = [(query, scorer.contract.format_passage(passage)) for passage in passages]
    logits, tokens = await serving.compute(len(pairs), "pair", field, lambda: scorer.tokenize(pairs, truncate))
    return Ranked(logits, np.argsort(-logits, kind="stable").tolist(), tokens)


DOCUMENTED_NAME = "nvidia/llama-nemotron-rerank-1b-v2"
"""What the documented request asks for, whatever model the service was given: NVIDIA's containers answer to it too."""


def _check_model(asked: str, serving: Serving) -> None:
    if asked not in (serving.name, DOCUMENTED_NAME):
        raise wrong_model(asked, serving.name)


ROUTES = (
    Route("/v1/ranking", "Rank passages (NIM).", RankingRequest, rank),
    Route("/v1/rerank", "Rank documents (Cohere, Jina).", RerankRequest, rerank),
    Route("/v2/rerank", "The same, where Cohere's newer clients look for it.", RerankRequest, rerank),
    Route("/rerank", "Rank texts (Text Embeddings Inference).", TeiRequest, rerank_tei),
)

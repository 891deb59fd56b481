"""The APIs that services speak: where they listen, what they are sent, and where their reply has its numbers.

NIM: https://docs.nvidia.com/nim/nemo-retriever/text-embedding/latest/reference.html and
https://docs.nvidia.com/nim/nemo-retriever/text-reranking/latest/reference.html
OpenAI: https://platform.openai.com/docs/api-reference/embeddings
vLLM: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html (embeddings in Cohere's form)
Cohere: https://docs.cohere.com/reference/rerank, spoken by Jina and vLLM too
TEI: https://huggingface.github.io/text-embeddings-inference/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pipeline_eval.endpoints.replies import in_order

Kind = Literal["query", "passage"]
Truncate = Literal["NONE", "START", "END"]


@dataclass(frozen=True)
class Texts:
    """A request for embeddings. `prompt`: the service is to put the model's prefix for `kind` before the texts."""

    model: str
    texts: Sequence[str]
    kind: Kind
    truncate: Truncate
    prompt: bool = True
    normalize: bool = True


@dataclass(frozen=True)
class Candidates:
    """A request for the scores of passages for one question."""

    model: str
    query: str
    passages: Sequence[str]
    truncate: Truncate


Request = TypeVar("Request")


def _listed(reply: Any) -> list[str]:
    return [str(item["id"]) for item in reply["data"]]


@dataclass(frozen=True)
class Api(Generic[Request]):
    """One API.

    Attributes:
        name: what `nim_api` calls it.
        path: where requests are posted.
        body: the request as this API writes it.
        values: (reply, number of texts) -> an embedding or a score for each text, in the order of the request.
        ready: answers 200 once the service can be used; None where the API has no such path.
        models, names: where the served models are told, and their names in that reply.
        prompts: the service knows questions from passages, and puts the model's prefixes before them itself.
    """

    name: str
    path: str
    body: Callable[[Request], dict[str, Any]]
    values: Callable[[Any, int], Any]
    ready: str | None = None
    models: str = "/v1/models"
    names: Callable[[Any], list[str]] = _listed
    prompts: bool = False


def _nim_embeddings(request: Texts) -> dict[str, Any]:
    told = {"input_type": request.kind, "truncate": request.truncate}
    return {"input": list(request.texts), "model": request.model, **told}


def _openai_embeddings(request: Texts) -> dict[str, Any]:
    return {"input": list(request.texts), "model": request.model}


def _vllm_embeddings(request: Texts) -> dict[str, Any]:
    kind = {"input_type": "query" if request.kind == "query" else "document"} if request.prompt else {}
    cut = {} if request.truncate == "END" else {"truncate": request.truncate}  # END is what is done anyway
    return {"texts": list(request.texts), "model": request.model, **kind, "embedding_types": ["float"], **cut}


def _tei_embeddings(request: Texts) -> dict[str, Any]:
    prompt = {"prompt_name": "query" if request.kind == "query" else "document"} if request.prompt else {}
    return {"inputs": list(request.texts), "normalize": request.normalize, **prompt, **_tei_cut(request.truncate)}


def _nim_ranking(request: Candidates) -> dict[str, Any]:
    texts = {"query": {"text": request.query}, "passages": [{"text": text} for text in request.passages]}
    return {"model": request.model, **texts, "truncate": request.truncate}


def _cohere_ranking(request: Candidates) -> dict[str, Any]:
    documents = list(request.passages)
    return {"model": request.model, "query": request.query, "documents": documents, "top_n": len(documents)}


def _tei_ranking(request: Candidates) -> dict[str, Any]:
    # Raw: between 0 and 1 the best passages would all be 1.0.
    return {"query": request.query, "texts": list(request.passages), "raw_scores": True, **_tei_cut(request.truncate)}


def _tei_cut(truncate: Truncate) -> dict[str, Any]:
    side = {"truncation_direction": "Left"} if truncate == "START" else {}
    return {"truncate": truncate != "NONE", **side}


def _tei_name(reply: Any) -> list[str]:
    return [str(reply["model_id"])]


def _embeddings_in_data(reply: Any, count: int) -> Any:
    return in_order(reply["data"], "embedding", count)


EMBEDDING: dict[str, Api[Texts]] = {
    api.name: api
    for api in (
        Api("nim", "/v1/embeddings", _nim_embeddings, _embeddings_in_data, ready="/v1/health/ready", prompts=True),
        Api("openai", "/v1/embeddings", _openai_embeddings, _embeddings_in_data),
        Api(
            "vllm",
            "/v2/embed",
            _vllm_embeddings,
            lambda reply, count: reply["embeddings"]["float"],
            ready="/health",
            prompts=True,
        ),
        Api(
            "tei",
            "/embed",
            _tei_embeddings,
            lambda reply, count: reply,
            ready="/health",
            models="/info",
            names=_tei_name,
        ),
    )
}
"""By the values of `nim_api` in the embedding family."""

RANKING: dict[str, Api[Candidates]] = {
    api.name: api
    for api in (
        Api(
            "nim",
            "/v1/ranking",
            _nim_ranking,
            lambda reply, count: in_order(reply["rankings"], "logit", count),
            ready="/v1/health/ready",
        ),
        Api(
            "cohere",
            "/v1/rerank",
            _cohere_ranking,
            lambda reply, count: in_order(reply["results"], "relevance_score", count),
        ),
        Api(
            "tei",
            "/rerank",
            _tei_ranking,
            lambda reply, count: in_order(reply, "score", count),
            ready="/health",
            models="/info",
            names=_tei_name,
        ),
    )
}
"""By the values of `nim_api` in the reranking family."""

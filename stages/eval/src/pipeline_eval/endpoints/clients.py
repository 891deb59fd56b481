"""Clients of served models: texts in, checked numbers out, in the order of the texts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.llm import is_loopback
from pipeline.schemas.eval import EmbedEvalConfig, EvalConfig, RerankEvalConfig
from pipeline_eval.endpoints import replies
from pipeline_eval.endpoints.apis import EMBEDDING, RANKING, Api, Candidates, Kind, Request, Texts, Truncate
from pipeline_eval.endpoints.http import Http, Refused

logger = logging.getLogger("pipeline")
_NO_LIST = (403, 404, 405)
"""Statuses of a service that may work and only does not list its models."""

Advance = Callable[[int], None]


@dataclass
class Client(Generic[Request]):
    """What clients of every API share.

    Attributes:
        model: name of the served model; None takes the only one that the service lists.
        batch_size: texts of one request.
    """

    http: Http
    api: Api[Request]
    model: str | None = None
    batch_size: int = 32
    truncate: Truncate = "END"

    @property
    def url(self) -> str:
        return self.http.url

    def connect(self) -> None:
        """Check that the service is ready and serves the model.

        Raises:
            PipelineError: nothing answers at the address, the service is not ready, or it serves another model.
        """
        if self.api.ready:
            self.http.get(self.api.ready, lambda reply: None)
        self.model = self._choose(self._served())
        if not is_loopback(self.http.host):
            logger.info(f"nim: the questions and passages of the test sets are sent to {self.http.host}")

    def _served(self) -> list[str] | None:
        """Names of the served models; None where the service does not tell them and one was given."""
        try:
            return self.api.names(self.http.get(self.api.models, lambda reply: reply.json()))
        except Refused as error:
            if self.model is None or error.status not in _NO_LIST:
                raise
        except (ValueError, KeyError, TypeError) as error:
            if self.model is None:
                raise PipelineError(
                    f"{self.url}{self.api.models} is not the list of models of a service with nim_api={self.api.name}",
                    fix="set nim_model, or nim_api if the service speaks another API",
                ) from error
        return None

    def _choose(self, names: list[str] | None) -> str:
        if self.model is not None and (names is None or self.model in names):
            return self.model
        if self.model is None and names and len(names) == 1:
            return names[0]
        served = ", ".join(names or []) or "no model"
        wanted = "which one is meant is not said" if self.model is None else f"nim_model={self.model} is not served"
        raise PipelineError(f"{self.url} serves {served}; {wanted}", fix="set nim_model to a name it serves")

    def _named(self) -> str:
        if self.model is None:
            raise RuntimeError("connect() comes first")
        return self.model

    def _check_model(self, reply: Any) -> None:
        served = reply.get("model") if isinstance(reply, dict) else None
        if served and served != self.model:
            raise PipelineError(
                f"{self.url} answered with the model {served!r}, asked was {self.model!r}",
                fix="set nim_model to the model you mean",
            )


@dataclass
class EmbeddingClient(Client[Texts]):
    """Embeds raw texts. Who puts the prefixes before them depends on the service.

    Attributes:
        contract: of the model that is served; its prefixes are put before the texts here if `prefixes`.
        prefixes: the service does not do that itself.
        dimension: what every vector must have; None takes that of the first reply.
    """

    contract: EncodingContract = field(default_factory=EncodingContract)
    prefixes: bool = False
    dimension: int | None = None
    _first: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def embed(self, texts: Sequence[str], kind: Kind, advance: Advance | None = None) -> np.ndarray:
        """Vectors of raw texts: fp32 [len(texts), dimension]. `advance` is told how many texts are done.

        Raises:
            PipelineError: the service refuses a request, or still fails after the last try.
        """
        # Texts of one length in one request: the service pads less.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        parts = self.http.each(
            lambda batch: self._batch([texts[index] for index in batch], kind),
            batches,
            lambda batch: advance(len(batch)) if advance else None,
        )
        return replies.in_place(batches, parts)

    def _batch(self, texts: list[str], kind: Kind) -> np.ndarray:
        if self.prefixes:
            prefixed = self.contract.format_query if kind == "query" else self.contract.format_passage
            texts = [prefixed(text) for text in texts]
        request = Texts(self._named(), texts, kind, self.truncate, not self.prefixes, self.contract.normalize)

        def read(reply: Any) -> np.ndarray:
            self._check_model(reply)
            return self._of_one_dimension(replies.vectors(self.api.values(reply, len(texts)), len(texts)))

        return self.http.post(self.api.path, self.api.body(request), read)

    def _of_one_dimension(self, vectors: np.ndarray) -> np.ndarray:
        with self._first:
            if self.dimension is None:
                self.dimension = vectors.shape[1]
        if vectors.shape[1] != self.dimension:
            raise ValueError(f"{vectors.shape[1]} dimensions, expected were {self.dimension}")
        return vectors

    @property
    def diagnostics(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "api_backend": self.api.name,
            "requested_model": self.model,
            "embedding_dimension": self.dimension,
            "prefixes": "client" if self.prefixes else "server",
            "retried_requests": self.http.retried,
            "invalid_embedding_retry_requests": self.http.unusable,
        }


@dataclass
class RankingClient(Client[Candidates]):
    """Scores passages for questions. The service makes a text of the pair under its own contract."""

    def scores(self, query: str, passages: Sequence[str]) -> np.ndarray:
        """Scores of the passages for one question: fp32 [len(passages)].

        Raises:
            PipelineError: the service refuses a request, or still fails after the last try.
        """
        return self.score([query] * len(passages), passages)

    def score(self, queries: Sequence[str], passages: Sequence[str], advance: Advance | None = None) -> np.ndarray:
        """Scores of pairs: fp32 [len(passages)]; those of one question go out together. `advance` counts pairs."""
        if len(queries) != len(passages):
            raise ValueError(f"{len(queries)} queries for {len(passages)} passages")
        of_query: dict[str, list[int]] = {}
        for index, query in enumerate(queries):
            of_query.setdefault(query, []).append(index)
        batches = [
            indices[start : start + self.batch_size]
            for indices in of_query.values()
            for start in range(0, len(indices), self.batch_size)
        ]
        parts = self.http.each(
            lambda batch: self._batch(queries[batch[0]], [passages[index] for index in batch]),
            batches,
            lambda batch: advance(len(batch)) if advance else None,
        )
        return replies.in_place(batches, parts)

    def _batch(self, query: str, passages: list[str]) -> np.ndarray:
        request = Candidates(self._named(), query, passages, self.truncate)

        def read(reply: Any) -> np.ndarray:
            self._check_model(reply)
            return replies.scores(self.api.values(reply, len(passages)), len(passages))

        return self.http.post(self.api.path, self.api.body(request), read)

    @property
    def diagnostics(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "api_backend": self.api.name,
            "requested_model": self.model,
            "retried_requests": self.http.retried,
            "invalid_score_retry_requests": self.http.unusable,
        }


def embedding_client(
    config: EmbedEvalConfig, start_hint: str, contract: EncodingContract, name: str = ""
) -> EmbeddingClient:
    """The client of one of `nim_urls`, or of `nim_url`. `contract`: of the model that is taken to be served."""
    api = EMBEDDING[config.nim_api]
    prefixes = not api.prompts if config.nim_prefixes == "auto" else config.nim_prefixes == "client"
    return EmbeddingClient(
        _http(config, start_hint, name),
        api,
        config.nim_model,
        config.nim_batch_size,
        config.nim_truncate,
        contract=contract,
        prefixes=prefixes,
        dimension=config.nim_embedding_dimension,
    )


def ranking_client(config: RerankEvalConfig, start_hint: str, name: str = "") -> RankingClient:
    """The client of one of `nim_urls`, or of `nim_url`."""
    http, api = _http(config, start_hint, name), RANKING[config.nim_api]
    return RankingClient(http, api, config.nim_model, config.nim_batch_size, config.nim_truncate)


def _http(config: EvalConfig, start_hint: str, name: str) -> Http:
    return Http(
        config.nim_urls[name] if name else config.nim_url,
        config.nim_timeout,
        config.nim_max_retries,
        config.nim_api_key_env,
        start_hint,
        config.nim_concurrency,
        key=f"nim_urls.{name}" if name else "nim_url",
    )

"""Client of a served embedding model: NVIDIA's NIM, or any server with its API."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.passages import Passage
from pipeline.run.progress import progress
from pipeline_eval.identity import Identity
from pipeline_eval.vectors import VectorIndex, stored

Kind = Literal["query", "passage"]
LONGEST_WAIT = 60.0
"""Seconds; neither back-off nor Retry-After makes us wait longer than this between two tries."""


class _TryAgain(Exception):
    """A reply that the next try may mend; `wait` is what the server asked for, in seconds."""

    def __init__(self, problem: str, wait: float | None = None) -> None:
        super().__init__(problem)
        self.wait = wait


@dataclass
class NimClient:
    """Embeds raw texts over HTTP. The server applies its own contract, so no prefix is put before them here.

    Attributes:
        model: name of the served model; None takes the only one of /v1/models.
        start_hint: the command that starts the service, shown when it is not there.
        first_wait: seconds before the first repeat; doubled each time.
    """

    url: str
    model: str | None = None
    timeout: float = 60.0
    max_retries: int = 3
    start_hint: str = "pipeline embed deploy detach=true"
    first_wait: float = 0.5
    dimension: int | None = None
    retried: int = 0
    """Requests repeated so far, for whatever reason."""
    invalid: int = 0
    """Of these, the ones whose reply held unusable vectors."""

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")

    @cached_property
    def _http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=self.timeout)

    def connect(self) -> None:
        """Check that the service is ready and serves the model.

        Raises:
            PipelineError: nothing answers at the address, the service is not ready, or it serves another model.
        """
        fix = f"start it: `{self.start_hint}`, or set nim_url"
        try:
            ready = self._http.get("/v1/health/ready")
            if ready.status_code != 200:
                raise PipelineError(f"{self.url} is not ready: /v1/health/ready answers {ready.status_code}", fix=fix)
            listed = self._http.get("/v1/models")
            listed.raise_for_status()
            names = [str(item["id"]) for item in listed.json()["data"]]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PipelineError(f"no embedding service at {self.url}: {error}", fix=fix) from error
        except (ValueError, KeyError, TypeError) as error:
            raise PipelineError(f"{self.url}/v1/models is not the list of an embedding service", fix=fix) from error
        self.model = self._choose(names)

    def _choose(self, names: list[str]) -> str:
        served = ", ".join(names) or "no model"
        if self.model is None and len(names) == 1:
            return names[0]
        if self.model is None or self.model not in names:
            wanted = "which one is meant is not said" if self.model is None else f"nim_model={self.model} is not served"
            raise PipelineError(f"{self.url} serves {served}; {wanted}", fix="set nim_model to a name it serves")
        return self.model

    def embed(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        """Vectors of one batch of raw texts: fp32 [len(texts), dimension].

        Overload (429), server errors, lost connections and unusable vectors are tried again, `max_retries` times.

        Raises:
            PipelineError: the service refuses the request, or still fails after the last try.
        """
        for attempt in range(self.max_retries + 1):
            try:
                return self._once(texts, kind)
            except _TryAgain as problem:
                if attempt == self.max_retries:
                    tries = f"{attempt + 1} tries" if attempt else "1 try"
                    raise PipelineError(
                        f"{self.url}/v1/embeddings failed after {tries}: {problem}",
                        fix=f"look at the server's log; is it still there? (`{self.start_hint}`)",
                    ) from problem
                self.retried += 1
                wait = min(problem.wait if problem.wait is not None else self.first_wait * 2**attempt, LONGEST_WAIT)
                logging.getLogger("pipeline").debug(f"nim: {problem}; again in {wait:g} s")
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _once(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        body = {"input": list(texts), "model": self.model, "input_type": kind}
        try:
            reply = self._http.post("/v1/embeddings", json=body)
        except httpx.TransportError as error:
            raise _TryAgain(str(error) or type(error).__name__) from error
        if reply.status_code == 429 or reply.status_code >= 500:
            raise _TryAgain(f"status {reply.status_code}", _retry_after(reply))
        if reply.status_code != 200:
            raise PipelineError(
                f"{self.url}/v1/embeddings refuses the request: {reply.status_code} {reply.text[:300]}",
                fix="texts too long for the service, or another API?",
            )
        try:
            vectors = self._vectors(reply.json(), len(texts))
        except (ValueError, KeyError, TypeError) as error:
            self.invalid += 1
            raise _TryAgain(f"unusable reply: {error}") from error
        if self.dimension is None:
            self.dimension = vectors.shape[1]
        elif vectors.shape[1] != self.dimension:
            raise PipelineError(
                f"{self.url} gave {self.dimension} dimensions before and {vectors.shape[1]} now",
                fix="was the service started anew with another model? run eval again",
            )
        return vectors

    def _vectors(self, reply: dict[str, Any], count: int) -> np.ndarray:
        """The reply's vectors in the order of the texts. Raises ValueError when they cannot be used."""
        served = reply.get("model")
        if served and served != self.model:
            raise PipelineError(
                f"{self.url} answered with the model {served!r}, asked was {self.model!r}",
                fix="set nim_model to the model you mean",
            )
        data = reply["data"]
        indices = [item["index"] for item in data]
        if sorted(indices) != list(range(count)):
            raise ValueError(f"{count} texts sent, but the indices are {indices[:5]}… ({len(indices)})")
        by_index = {item["index"]: item["embedding"] for item in data}
        vectors = np.array([by_index[index] for index in range(count)], dtype=np.float32)  # ragged: ValueError
        if vectors.ndim != 2 or not vectors.shape[1]:
            raise ValueError("an embedding is not a list of numbers")
        if not np.isfinite(vectors).all():
            bad = int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
            raise ValueError(f"the vector of text {bad} of the batch holds NaN or infinity")
        return vectors

    @property
    def diagnostics(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "requested_model": self.model,
            "embedding_dimension": self.dimension,
            "retried_requests": self.retried,
            "invalid_embedding_retry_requests": self.invalid,
        }


def _retry_after(reply: httpx.Response) -> float | None:
    """Seconds the server asks us to wait: a number, or a date."""
    said = reply.headers.get("retry-after")
    if not said:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


@dataclass(frozen=True)
class NimSystem:
    """The served model. It is always measured anew: what runs behind an address cannot be known from here.

    `checkpoint` is the content of the tuned model of this run: the measurement is dropped when that changes.
    """

    client: NimClient
    batch_size: int
    corpus_chunk_size: int
    checkpoint: str
    scratch: Path
    name: str = "nim"

    @property
    def identity(self) -> Identity:
        return Identity(f"{self.client.model} at {self.client.url}", self.checkpoint)

    @contextmanager
    def open(self, corpus: dict[str, Passage]) -> Iterator[VectorIndex]:
        plain = EncodingContract()  # the server puts its prefix; title and text are joined as everywhere else
        texts = [plain.format_passage(item.text, item.title) for item in corpus.values()]
        begin = time.monotonic()
        with progress("nim: passages", len(texts), "texts") as shown:
            chunks = (
                texts[start : start + self.corpus_chunk_size] for start in range(0, len(texts), self.corpus_chunk_size)
            )
            parts = (self._encode(chunk, "passage", shown.advance) for chunk in chunks)
            vectors = stored(parts, len(texts), self.scratch)
        rate = len(texts) / max(time.monotonic() - begin, 1e-9)
        logging.getLogger("pipeline").info(f"nim: {len(texts)} passages encoded over HTTP, {rate:.0f} texts/s")
        yield VectorIndex(
            list(corpus),
            vectors,
            lambda queries: self._encode(queries, "query"),
            passage_block=self.corpus_chunk_size,
            device="cpu",
        )

    def _encode(self, texts: Sequence[str], kind: Kind, advance: Any = None) -> np.ndarray:
        # Texts of one length in one request: the server pads less.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        parts = []
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            parts.append(self.client.embed([texts[index] for index in batch], kind))
            if advance:
                advance(len(batch))
        vectors = np.concatenate(parts)
        vectors[order] = vectors.copy()
        return vectors

"""The services as clients of Text Embeddings Inference see them."""

from __future__ import annotations

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from pipeline.contract import EncodingContract
from pipeline.retrieval.encoder import BiEncoder

TEXTS = ["pump", "Alarm E-104 means that the sieve column is blocked."]


def get(deployment, path):
    with urlopen(deployment.service.url + path, timeout=10) as reply:
        return reply.status, reply.read()


def embed(deployment, **body):
    """(status, reply) of POST /embed."""
    try:
        with urlopen(Request(deployment.service.url + "/embed", json.dumps(body).encode()), timeout=30) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        return error.code, json.load(error)


def test_an_embedder_tells_its_type_and_limits(deployment):
    assert get(deployment, "/health") == (200, b"")
    told = json.loads(get(deployment, "/info")[1])
    assert told["model_id"] == "custom" and told["model_type"] == {"embedding": {"pooling": "mean"}}
    assert told["max_input_length"] == 128 and told["model_dtype"] == "float32"


def test_a_reranker_tells_its_type_and_limits(rerank_deployment):
    assert get(rerank_deployment, "/health") == (200, b"")
    told = json.loads(get(rerank_deployment, "/info")[1])
    assert list(told["model_type"]) == ["reranker"] and told["model_id"] == "nvidia/llama-nemotron-rerank-1b-v2"
    assert told["max_input_length"] == 64 and told["max_client_batch_size"] == 80


def test_embed_puts_the_named_prompt_before_the_texts(deployment, checkpoint):
    model = BiEncoder.load(str(checkpoint), EncodingContract.load(checkpoint))
    for name, expected in (("query", model.encode_queries(TEXTS)), ("document", model.encode_passages(TEXTS))):
        status, vectors = embed(deployment, inputs=TEXTS, prompt_name=name)
        assert status == 200 and np.abs(np.array(vectors) - expected).max() < 1e-4
    _, prompted = embed(deployment, inputs="pump", prompt_name="query")
    _, by_hand = embed(deployment, inputs="query: pump")
    assert np.abs(np.array(prompted) - np.array(by_hand)).max() < 1e-6


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"inputs": "word " * 300, "truncate": False}, "the limit is 128"),
        ({"inputs": "pump", "normalize": False}, "normalize"),
        ({"inputs": [[1, 2]]}, "token ids"),
    ],
)
def test_embed_refuses_what_it_cannot_do(deployment, body, words):
    status, reply = embed(deployment, **body)
    assert status == 400 and words in reply["error"]["message"]

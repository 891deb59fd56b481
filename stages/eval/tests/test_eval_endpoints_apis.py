"""What each API is sent, and how its reply is read."""

from __future__ import annotations

import numpy as np
import pytest
from pipeline_eval.drift import drifted, metric_deltas
from pipeline_eval.endpoints.apis import EMBEDDING, RANKING
from pipeline_eval.endpoints.clients import EmbeddingClient, RankingClient, embedding_client, ranking_client
from pipeline_eval.endpoints.embedding import ServedEmbedder
from pipeline_eval.endpoints.http import Http
from pipeline_eval.endpoints.ranking import ServedReranker
from pipeline_eval.identity import Identity

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.schemas.eval import EmbedEvalConfig, RerankEvalConfig

CONTRACT = EncodingContract(query_prefix="query: ", passage_prefix="passage: ", normalize=False)
VECTORS = [[1.0, 2.0], [3.0, 4.0]]
PAGES = {
    "nim": None,
    "openai": {"/v1/models": {"data": [{"id": "custom"}]}},
    "cohere": {"/v1/models": {"data": [{"id": "custom"}]}},
    "vllm": {"/health": "", "/v1/models": {"data": [{"id": "custom"}]}},
    "tei": {"/health": "", "/info": {"model_id": "custom", "model_type": {"reranker": {}}}},
}


def data(vectors):
    return {"data": [{"index": i, "embedding": vectors[i]} for i in (1, 0)]}


EMBEDDING_CASES = {
    "nim": (
        "/v1/embeddings",
        {"input": ["bb", "a"], "model": "custom", "input_type": "passage", "truncate": "END"},
        data(VECTORS),
    ),
    "openai": ("/v1/embeddings", {"input": ["passage: bb", "passage: a"], "model": "custom"}, data(VECTORS)),
    "vllm": (
        "/v2/embed",
        {"texts": ["bb", "a"], "model": "custom", "input_type": "document", "embedding_types": ["float"]},
        {"id": "1", "embeddings": {"float": VECTORS}, "texts": ["bb", "a"]},
    ),
    "tei": ("/embed", {"inputs": ["passage: bb", "passage: a"], "truncate": True, "normalize": False}, VECTORS),
}
SCORES = [{"index": 1, "x": 0.25}, {"index": 0, "x": -7.5}]
RANKING_CASES = {
    "nim": (
        "/v1/ranking",
        {"model": "custom", "query": {"text": "q"}, "passages": [{"text": "bb"}, {"text": "a"}], "truncate": "END"},
        {"rankings": [{"index": item["index"], "logit": item["x"]} for item in SCORES]},
    ),
    "cohere": (
        "/v1/rerank",
        {"model": "custom", "query": "q", "documents": ["bb", "a"], "top_n": 2},
        {"model": "custom", "results": [{"index": item["index"], "relevance_score": item["x"]} for item in SCORES]},
    ),
    "tei": (
        "/rerank",
        {"query": "q", "texts": ["bb", "a"], "raw_scores": True, "truncate": True},
        [{"index": item["index"], "score": item["x"]} for item in SCORES],
    ),
}


@pytest.mark.parametrize("api", EMBEDDING)
def test_embeddings_are_asked_for_as_documented(serve, api):
    path, body, answer = EMBEDDING_CASES[api]
    service = serve(lambda *_: (200, answer, {}), pages=PAGES[api])
    client = embedding_client(EmbedEvalConfig(nim_url=service.url + "/", nim_api=api), "start it", CONTRACT)
    client.connect()
    assert client.embed(["bb", "a"], "passage").tolist() == VECTORS
    assert (service.paths, service.requests, client.model) == ([path], [body], "custom")


@pytest.mark.parametrize("api", RANKING)
def test_scores_are_asked_for_as_documented(serve, api):
    path, body, answer = RANKING_CASES[api]
    service = serve(lambda *_: (200, answer, {}), pages=PAGES[api])
    client = ranking_client(RerankEvalConfig(nim_url=service.url, nim_api=api), "start it")
    client.connect()
    assert client.scores("q", ["bb", "a"]).tolist() == [-7.5, 0.25]
    assert (service.paths, service.requests, client.model) == ([path], [body], "custom")


@pytest.mark.parametrize(
    ("api", "said"),
    [
        ("nim", {"input": ["how"], "model": "custom", "input_type": "query", "truncate": "START"}),
        ("openai", {"input": ["how"], "model": "custom"}),
        (
            "vllm",
            {
                "texts": ["how"],
                "model": "custom",
                "input_type": "query",
                "embedding_types": ["float"],
                "truncate": "START",
            },
        ),
        (
            "tei",
            {
                "inputs": ["how"],
                "normalize": False,
                "prompt_name": "query",
                "truncate": True,
                "truncation_direction": "Left",
            },
        ),
    ],
)
def test_a_service_that_puts_the_prefixes_gets_raw_texts_and_the_kind(serve, api, said):
    one = {"nim": {"data": [{"index": 0, "embedding": [1.0]}]}, "tei": [[1.0]]}
    one |= {"openai": one["nim"], "vllm": {"embeddings": {"float": [[1.0]]}}}
    service = serve(lambda *_: (200, one[api], {}), pages=PAGES[api])
    config = EmbedEvalConfig(nim_url=service.url, nim_api=api, nim_prefixes="server", nim_truncate="START")
    client = embedding_client(config, "", CONTRACT)
    client.connect()
    client.embed(["how"], "query")
    assert service.requests == [said]


def test_prefixes_can_be_put_here_for_any_service(serve):
    service = serve(lambda *_: (200, {"embeddings": {"float": [[1.0]]}}, {}), pages=PAGES["vllm"])
    config = EmbedEvalConfig(nim_url=service.url, nim_api="vllm", nim_prefixes="client")
    client = embedding_client(config, "", CONTRACT)
    client.connect()
    client.embed(["how"], "query")
    assert service.requests[0]["texts"] == ["query: how"] and "input_type" not in service.requests[0]
    assert client.diagnostics["prefixes"] == "client"


def test_the_expected_dimension_is_checked_from_the_first_reply_on(serve):
    service = serve(lambda *_: (200, data(VECTORS), {}))
    config = EmbedEvalConfig(nim_url=service.url, nim_embedding_dimension=3, nim_max_retries=0)
    client = embedding_client(config, "", CONTRACT)
    client.connect()
    with pytest.raises(PipelineError, match=r"failed after 1 try: .*2 dimensions, expected were 3"):
        client.embed(["a", "b"], "query")


def test_texts_that_leave_this_machine_are_announced(serve, monkeypatch, logged):
    service = serve(lambda *_: (200, data(VECTORS), {}))
    client = EmbeddingClient(Http(service.url), EMBEDDING["nim"])
    client.connect()
    assert not any("are sent to" in line for line in logged)
    client.http.host = "models.example"
    client.connect()
    assert "nim: the questions and passages of the test sets are sent to models.example" in logged


def test_a_served_embedder_keeps_the_order_of_the_corpus(serve, tiny, tmp_path):
    """Batches are sorted by length on the way out; each vector must come back to its own passage."""

    def vector(text):
        return [float(len(text)), float(text.count("e")), 1.0]

    def answer(body, _):
        return 200, {"data": [{"index": i, "embedding": vector(text)} for i, text in enumerate(body["input"])]}, {}

    service = serve(answer)
    client = EmbeddingClient(Http(service.url), EMBEDDING["nim"], batch_size=2)
    client.connect()
    system = ServedEmbedder(client, corpus_chunk_size=4, checkpoint="c", scratch=tmp_path)
    with system.open(tiny.corpus) as index:
        ranking = index.search({"q": "e"}, 3)
    expected = {key: float(np.dot(vector("e"), vector(item.text))) for key, item in tiny.corpus.items()}
    best = sorted(expected, key=lambda key: -expected[key])[:3]
    assert list(ranking["q"]) == best
    assert [ranking["q"][key] for key in best] == pytest.approx([expected[key] for key in best])
    assert max(len(body["input"]) for body in service.requests) == 2


def test_a_served_reranker_puts_the_candidates_in_order_and_only_them(serve, tiny):
    passages = {item.text: key for key, item in tiny.corpus.items()}
    wanted = {"d_0": 1.0, "d_1": 3.0, "d_2": 2.0, "d_3": 9.0, "d_4": 2.0, "d_5": 0.0}

    def answer(body, _):
        found = [{"index": i, "logit": wanted[passages[item["text"]]]} for i, item in enumerate(body["passages"])]
        return 200, {"rankings": found[::-1]}, {}

    service = serve(answer)
    client = RankingClient(Http(service.url), RANKING["nim"], batch_size=3)
    client.connect()
    system = ServedReranker(client, "c", "retriever", Identity("first", "f"), top_k=5, chunk=7)
    first = {query: {f"d_{i}": -float(i) for i in (4, 2, 1, 0, 5, 3)} for query in tiny.queries}
    with system.start() as ranked:
        run = ranked.rank(tiny, [first])
    assert set(run) == set(tiny.queries)
    # d_3 is the sixth; d_4 and d_2 are equal, and d_4 was before d_2
    assert all(list(found) == ["d_1", "d_4", "d_2", "d_0", "d_5"] for found in run.values())
    assert sum(len(body["passages"]) for body in service.requests) == 5 * len(tiny.queries)
    assert {body["query"]["text"] for body in service.requests} == set(tiny.queries.values())
    other = ServedReranker(client, "c", "retriever", Identity("first", "f"), top_k=4, chunk=7)
    assert system.sources == ("retriever",) and system.identity.digest() != other.identity.digest()


def test_tolerances_at_and_beyond_the_border():
    checkpoint = {"NDCG": {"NDCG@1": 0.5, "NDCG@5": 0.5}, "Recall": {"Recall@1": 0.5, "Recall@10": 0.5}}
    nim = {"NDCG": {"NDCG@1": 0.53, "NDCG@5": 0.51}, "Recall": {"Recall@1": 0.4699, "Recall@10": 0.4899}}
    deltas = metric_deltas(checkpoint, nim, 0.01, 0.03)
    assert drifted(deltas) == ["Recall@1", "Recall@10"]
    assert deltas["NDCG"]["NDCG@1"] == {
        "checkpoint": 0.5,
        "nim": 0.53,
        "delta": 0.03,
        "tolerance": 0.03,
        "within_tolerance": True,
    }

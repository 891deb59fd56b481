"""Clients of served models against a real HTTP server that misbehaves on purpose."""

from __future__ import annotations

import json
import socket
import threading

import numpy as np
import pytest
from pipeline_eval.endpoints.apis import EMBEDDING, RANKING
from pipeline_eval.endpoints.clients import EmbeddingClient, RankingClient
from pipeline_eval.endpoints.http import Http

from pipeline.errors import PipelineError


def vector(text: str) -> list[float]:
    return [float(len(text)), float(text.count("e")), 1.0]


def embeddings(body, **changes):
    data = [{"index": i, "embedding": vector(text)} for i, text in enumerate(body["input"])]
    return 200, {"data": data, "model": "custom"} | changes, {}


def rankings(body, **changes):
    logits = [{"index": i, "logit": float(len(item["text"]))} for i, item in enumerate(body["passages"])]
    return 200, {"rankings": logits} | changes, {}


def http(service, **options) -> Http:
    return Http(service.url, **{"first_wait": 0.001, "at_once": 1} | options)


def embedder(service, model=None, **options) -> EmbeddingClient:
    client = EmbeddingClient(http(service, **options), EMBEDDING["nim"], model)
    client.connect()
    return client


def ranker(service, **options) -> RankingClient:
    client = RankingClient(http(service, **options), RANKING["nim"])
    client.connect()
    return client


def closed_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


# -- what a passing failure is, and what it costs ------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_burst_of_failures_is_waited_out(serve, status):
    service = serve(lambda body, number: (status, {}, {}) if number < 2 else embeddings(body))
    client = embedder(service)
    assert client.embed(["a"], "query").tolist() == [vector("a")]
    assert len(service.requests) == 3 and client.diagnostics["retried_requests"] == 2
    assert client.diagnostics["invalid_embedding_retry_requests"] == 0


@pytest.mark.parametrize(
    ("said", "waited"), [("7", 7), ("0", 0), ("soon", 0.001), ("9999", 60), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)]
)
def test_retry_after_is_honoured(serve, monkeypatch, said, waited):
    waits: list[float] = []
    monkeypatch.setattr(Http, "_pause", lambda self, seconds: waits.append(seconds))
    embedder(serve(lambda body, n: (429, {}, {"retry-after": said}) if n == 0 else embeddings(body))).embed(
        ["a"], "query"
    )
    assert waits == [waited]


def test_waits_double_and_the_last_failure_is_named(serve, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(Http, "_pause", lambda self, seconds: waits.append(seconds))
    client = embedder(serve(lambda body, _: (500, {}, {})), start_hint="pipeline embed deploy -c mine")
    with pytest.raises(PipelineError, match=r"/v1/embeddings failed after 4 tries: status 500") as caught:
        client.embed(["a"], "query")
    assert waits == [0.001, 0.002, 0.004] and "pipeline embed deploy -c mine" in caught.value.fix


UNUSABLE_EMBEDDINGS = {
    "nan": (lambda data: data[0].update(embedding=[float("nan"), 1.0, 1.0]), "NaN or infinity"),
    "infinity": (lambda data: data[1].update(embedding=[1.0, float("inf"), 1.0]), "text 1 of the batch holds NaN"),
    "too large for fp32": (lambda data: data[1].update(embedding=[1e300, 1.0, 1.0]), "text 1 of the batch holds NaN"),
    "null": (lambda data: data[0].update(embedding=[None, 1.0, 1.0]), "not a number"),
    "numbers as text": (lambda data: data[0].update(embedding=["1", "2", "3"]), "not a number"),
    "other dimension in one reply": (lambda data: data[0].update(embedding=[1.0]), "unusable reply"),
    "empty vectors": (lambda data: [item.update(embedding=[]) for item in data], "not a list of numbers"),
    "same index twice": (lambda data: data[0].update(index=1), "indices"),
    "index too high": (lambda data: data[0].update(index=2), "indices"),
    "index is a text": (lambda data: data[0].update(index="0"), "unusable reply"),
    "no index": (lambda data: data[0].pop("index"), "KeyError: 'index'"),
    "no embedding": (lambda data: data[0].pop("embedding"), "KeyError: 'embedding'"),
    "one too few": (lambda data: data.pop(), "2 texts sent"),
    "one too many": (lambda data: data.append({"index": 2, "embedding": [1.0]}), "2 texts sent"),
}


@pytest.mark.parametrize("spoil, says", UNUSABLE_EMBEDDINGS.values(), ids=UNUSABLE_EMBEDDINGS)
def test_unusable_vectors_are_asked_for_again_then_refused(serve, spoil, says):
    def answer(body, number):
        status, document, headers = embeddings(body)
        if number < good_from:
            spoil(document["data"])
        return status, document, headers

    good_from = 1
    client = embedder(serve(answer))
    assert client.embed(["bb", "a"], "passage").tolist() == [vector("bb"), vector("a")]
    assert client.diagnostics["invalid_embedding_retry_requests"] == 1

    good_from = 99
    service = serve(answer)
    with pytest.raises(PipelineError, match=says):
        embedder(service, max_retries=1).embed(["bb", "a"], "passage")
    assert len(service.requests) == 2


UNUSABLE_SCORES = {
    "nan": (lambda found: found[0].update(logit=float("nan")), "NaN or infinity"),
    "null": (lambda found: found[0].update(logit=None), "not a number"),
    "a list": (lambda found: [item.update(logit=[1.0]) for item in found], "a score is not a number"),
    "same index twice": (lambda found: found[0].update(index=1), "indices"),
    "one missing": (lambda found: found.pop(), "2 texts sent"),
    "other name": (lambda found: found[0].update(score=found[0].pop("logit")), "KeyError: 'logit'"),
}


@pytest.mark.parametrize("spoil, says", UNUSABLE_SCORES.values(), ids=UNUSABLE_SCORES)
def test_unusable_scores_are_asked_for_again_then_refused(serve, spoil, says):
    def answer(body, number):
        status, document, headers = rankings(body)
        if number < good_from:
            spoil(document["rankings"])
        return status, document, headers

    good_from = 1
    client = ranker(serve(answer))
    assert client.scores("q", ["a", "bb"]).tolist() == [1, 2]
    assert client.diagnostics["invalid_score_retry_requests"] == 1

    good_from = 99
    with pytest.raises(PipelineError, match=says):
        ranker(serve(answer), max_retries=1).scores("q", ["a", "bb"])


@pytest.mark.parametrize(
    "broken",
    [
        lambda whole: (200, whole[:-9], {}),
        lambda whole: (200, b"", {}),
        lambda whole: (200, b"<html>busy</html>", {}),
        lambda whole: (200, whole, {"content-encoding": "gzip"}),
        lambda whole: (200, whole, {"content-length": str(len(whole) + 9)}),
    ],
    ids=["cut short", "empty", "a page", "said to be packed", "connection lost"],
)
def test_a_reply_that_is_no_json_is_asked_for_again_then_refused(serve, broken):
    def answer(body, number):
        return broken(json.dumps(rankings(body)[1]).encode()) if number < good_from else rankings(body)

    good_from = 2
    assert ranker(serve(answer)).scores("q", ["a"]).tolist() == [1]
    good_from = 99
    with pytest.raises(PipelineError, match=r"/v1/ranking failed after 2 tries"):
        ranker(serve(answer), max_retries=1).scores("q", ["a"])


def test_a_service_that_hangs_is_given_up(serve):
    free = threading.Event()

    def answer(body, number):
        if number < hanging:
            free.wait(5)
        return embeddings(body)

    hanging = 1
    assert embedder(serve(answer), timeout=0.2).embed(["a"], "query").shape == (1, 3)
    hanging = 99
    with pytest.raises(PipelineError, match="failed after 2 tries: timed out"):
        embedder(serve(answer), timeout=0.2, max_retries=1).embed(["a"], "query")
    free.set()


def test_a_service_that_goes_away_ends_in_a_message(serve):
    service = serve(lambda body, _: embeddings(body))
    client = embedder(service, max_retries=1, timeout=2)
    service.stop()
    with pytest.raises(PipelineError, match="failed after 2 tries"):
        client.embed(["a"], "query")


def test_another_dimension_between_replies_is_asked_for_again_then_refused(serve):
    def answer(body, number):
        size = 3 if number in good else 4
        return 200, {"data": [{"index": i, "embedding": [1.0] * size} for i in range(len(body["input"]))]}, {}

    good = {0, 2}
    client = embedder(serve(answer))
    client.embed(["a"], "query")
    assert client.embed(["a"], "query").shape == (1, 3)
    good = {0}
    client = embedder(serve(answer), max_retries=2)
    client.embed(["a"], "query")
    with pytest.raises(PipelineError, match="4 dimensions, expected were 3"):
        client.embed(["a"], "query")


# -- what is no passing failure ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fix"), [(400, "nim_truncate"), (401, "nim_api_key_env"), (404, "nim_api"), (302, "redirects")]
)
def test_a_refusal_is_not_repeated_and_its_text_is_shown(serve, status, fix):
    service = serve(lambda body, _: (status, {"detail": "input too long"}, {"location": "http://127.0.0.1:9/"}))
    with pytest.raises(PipelineError, match=rf"refuses the request: {status} .*input too long") as caught:
        embedder(service).embed(["a"], "query")
    assert len(service.requests) == 1 and fix in caught.value.fix


def test_another_model_than_asked_is_an_error(serve):
    service = serve(lambda body, _: embeddings(body, model="other"))
    with pytest.raises(PipelineError, match="answered with the model 'other', asked was 'custom'"):
        embedder(service).embed(["a"], "query")
    assert len(service.requests) == 1
    with pytest.raises(PipelineError, match="nim_model=mine is not served"):
        embedder(service, "mine")
    with pytest.raises(PipelineError, match="a, b; which one"):
        embedder(serve(lambda body, _: embeddings(body), models=("a", "b")))
    assert embedder(serve(lambda body, _: embeddings(body), models=("a", "b")), "b").model == "b"


def test_a_given_model_needs_no_list_of_models(serve):
    service = serve(lambda body, _: embeddings(body), pages={})
    assert embedder(service, "custom").embed(["a"], "query").shape == (1, 3)
    with pytest.raises(PipelineError, match="/v1/models refuses the request: 404"):
        embedder(service)
    with pytest.raises(PipelineError, match="/v1/models refuses the request: 401"):  # nothing else will work either
        embedder(serve(lambda body, _: embeddings(body), pages={"/v1/models": 401}), "custom")
    with pytest.raises(PipelineError, match="is not the list of models") as caught:
        embedder(serve(lambda body, _: embeddings(body), pages={"/v1/models": {"models": []}}))
    assert "nim_model" in caught.value.fix


def test_nothing_there_names_address_and_command_at_once():
    url = closed_address()
    hint = "pipeline embed deploy -c demo detach=true"
    with pytest.raises(PipelineError) as caught:
        EmbeddingClient(Http(url, start_hint=hint, first_wait=60), EMBEDDING["nim"]).connect()
    assert url in caught.value.message and hint in caught.value.fix


def test_a_service_that_is_not_ready_is_waited_for_then_refused(serve):
    with pytest.raises(PipelineError, match=r"/v1/health/ready failed after 3 tries: status 503"):
        embedder(serve(lambda body, _: embeddings(body), ready=503), max_retries=2)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://[::1", "/v1"])
def test_what_is_no_address_is_said(url):
    with pytest.raises(PipelineError, match="nim_url="):
        Http(url)


def test_no_proxy_stands_between_us_and_this_machine(serve, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, closed_address())
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert embedder(serve(lambda body, _: embeddings(body))).embed(["a"], "query").shape == (1, 3)


# -- the key -------------------------------------------------------------------------------------------------------


def test_the_key_goes_into_the_header_and_nowhere_else(serve, monkeypatch, logged):
    monkeypatch.setenv("MY_KEY", " s3cret\n")

    def answer(body, number):
        refusal = 400, {"detail": "the key s3cret may not do this"}, {}
        return (503, {}, {}) if number == 0 else embeddings(body) if number == 1 else refusal

    service = serve(answer)
    client = embedder(service, key_env="MY_KEY")
    client.embed(["a"], "query")
    assert service.keys == ["Bearer s3cret"] * 2
    with pytest.raises(PipelineError, match=r"the key \*\*\* may not") as caught:
        client.embed(["a"], "query")
    told = [str(caught.value), json.dumps(client.diagnostics), repr(client), *logged]
    assert any("again in" in line for line in logged) and not any("s3cret" in text for text in told)


def test_a_key_that_is_not_there_and_a_key_in_the_address_are_refused(serve, monkeypatch):
    service = serve(lambda body, _: embeddings(body))
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(PipelineError, match="nim_api_key_env=MY_KEY: this environment variable is not set"):
        embedder(service, key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "two words")
    with pytest.raises(PipelineError, match="cannot be an API key") as caught:
        embedder(service, key_env="MY_KEY")
    assert "two words" not in str(caught.value)
    with pytest.raises(PipelineError, match="user's name") as caught:
        Http("http://me:s3cret@host")
    assert "s3cret" not in str(caught.value)


# -- several at once -----------------------------------------------------------------------------------------------


def test_several_requests_are_under_way_at_once(serve):
    """Each reply waits until three requests are there: one after the other they would never come."""
    together = threading.Barrier(3, timeout=5)

    def answer(body, _):
        together.wait()
        return embeddings(body)

    client = embedder(serve(answer), at_once=3)
    client.batch_size = 2
    texts = ["a", "eeee", "bb", "ccc", "e", "dddddd"]
    done: list[int] = []
    assert client.embed(texts, "passage", done.append).tolist() == [vector(text) for text in texts]
    assert done == [2, 2, 2]


def test_the_first_failure_ends_the_others(serve):
    """One request is refused while another waits a long time before its next try."""
    waiting = threading.Event()

    def answer(body, _):
        if body["input"] == ["refused"]:
            waiting.wait(5)
            return 400, {"detail": "no"}, {}
        waiting.set()
        return 429, {}, {"retry-after": "3"}

    service = serve(answer)
    client = embedder(service, at_once=2)
    client.batch_size = 1
    with pytest.raises(PipelineError, match="refuses the request: 400"):
        client.embed(["refused", "later", *"abcdef"], "query")
    assert len(service.requests) <= 3  # what had not begun was not sent, and what waited was not sent again


def test_scores_come_back_to_their_pairs_in_any_order(serve):
    def backwards(body, _):
        scores = [len(body["query"]["text"]) * 100 + len(item["text"]) for item in body["passages"]]
        return 200, {"rankings": [{"index": i, "logit": scores[i]} for i in reversed(range(len(scores)))]}, {}

    service = serve(backwards)
    client = ranker(service, at_once=3)
    client.batch_size = 2
    queries = ["q", "qq", "q", "qq", "q"]
    passages = ["a", "bb", "ccc", "d", "eeeee"]
    found = client.score(queries, passages)
    assert found.dtype == np.float32 and found.tolist() == [101, 202, 103, 201, 105]
    assert sorted(len(body["passages"]) for body in service.requests) == [1, 2, 2]
    assert client.scores("q", []).shape == (0,)

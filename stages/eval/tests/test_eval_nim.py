"""The client of a served model against a real HTTP server that misbehaves on purpose."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from pipeline_eval.drift import drifted, metric_deltas
from pipeline_eval.nim import NimClient, NimSystem

from pipeline.errors import PipelineError


def vector(text: str) -> list[float]:
    return [float(len(text)), float(text.count("e")), 1.0]


def reply(body, **changes):
    data = [{"index": i, "embedding": vector(text)} for i, text in enumerate(body["input"])]
    return 200, {"data": data, "model": "custom"} | changes, {}


def client(service, **options) -> NimClient:
    made = NimClient(service.url, first_wait=0.01, **options)
    made.connect()
    return made


def test_sends_raw_texts_and_takes_the_model_from_the_service(serve):
    service = serve(lambda body, _: reply(body))
    vectors = client(service).embed(["one", "three"], "query")
    assert service.requests == [{"input": ["one", "three"], "model": "custom", "input_type": "query"}]
    assert vectors.dtype == np.float32 and vectors.tolist() == [vector("one"), vector("three")]


def test_order_follows_the_indices_not_the_reply(serve):
    def backwards(body, _):
        status, document, headers = reply(body)
        return status, document | {"data": document["data"][::-1]}, headers

    assert client(serve(backwards)).embed(["a", "bb", "ccc"], "passage")[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_failure_is_tried_again(serve, status):
    service = serve(lambda body, number: (status, {}, {}) if number < 2 else reply(body))
    nim = client(service)
    assert nim.embed(["a"], "query").shape == (1, 3)
    assert len(service.requests) == 3 and nim.diagnostics["retried_requests"] == 2


@pytest.mark.parametrize(
    ("said", "waited"), [("7", 7), ("0", 0), ("soon", 0.01), ("9999", 60), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)]
)
def test_retry_after_is_honoured(serve, monkeypatch, said, waited):
    waits: list[float] = []
    monkeypatch.setattr("pipeline_eval.nim.time.sleep", waits.append)
    service = serve(lambda body, number: (429, {}, {"retry-after": said}) if number == 0 else reply(body))
    client(service).embed(["a"], "query")
    assert waits == [waited]


def test_waits_double_without_retry_after(serve, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("pipeline_eval.nim.time.sleep", waits.append)
    with pytest.raises(PipelineError, match="failed after 4 tries: status 500"):
        client(serve(lambda body, _: (500, {}, {}))).embed(["a"], "query")
    assert waits == [0.01, 0.02, 0.04]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda item: item.update(embedding=[float("nan"), 1.0, 1.0]), "NaN"),
        (lambda item: item.update(embedding=[None, 1.0, 1.0]), "unusable"),
        (lambda item: item.update(embedding=[1.0]), "unusable"),
        (lambda item: item.update(index=1), "indices"),
        (lambda item: item.pop("embedding"), "unusable"),
    ],
    ids=["nan", "null", "ragged", "same index twice", "no embedding"],
)
def test_unusable_vectors_are_asked_for_again_then_refused(serve, spoil, says):
    def answer(body, number):
        status, document, headers = reply(body)
        if number < good_from:
            spoil(document["data"][0])
        return status, document, headers

    good_from = 1
    nim = client(serve(answer))
    assert nim.embed(["a", "b"], "passage").shape == (2, 3)
    assert nim.diagnostics["invalid_embedding_retry_requests"] == 1

    good_from = 99
    service = serve(answer)
    with pytest.raises(PipelineError, match=says):
        client(service, max_retries=1).embed(["a", "b"], "passage")
    assert len(service.requests) == 2


def test_another_dimension_half_way_is_an_error(serve):
    def answer(body, number):
        data = [{"index": i, "embedding": [1.0] * (3 + number)} for i in range(len(body["input"]))]
        return 200, {"data": data}, {}

    nim = client(serve(answer))
    nim.embed(["a"], "query")
    with pytest.raises(PipelineError, match="3 dimensions before and 4 now"):
        nim.embed(["a"], "query")


def test_a_refused_request_is_not_repeated_and_its_text_is_shown(serve):
    service = serve(lambda body, _: (400, {"detail": "input too long"}, {}))
    with pytest.raises(PipelineError, match="input too long"):
        client(service).embed(["a"], "query")
    assert len(service.requests) == 1


def test_another_model_than_asked_is_an_error(serve):
    service = serve(lambda body, _: reply(body, model="other"))
    with pytest.raises(PipelineError, match="answered with the model 'other'"):
        client(service).embed(["a"], "query")
    with pytest.raises(PipelineError, match="nim_model=mine is not served"):
        client(service, model="mine")
    with pytest.raises(PipelineError, match="a, b; which one"):
        client(serve(lambda body, _: reply(body), models=("a", "b")))


def test_nothing_there_names_address_and_command():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(PipelineError) as caught:
        NimClient(url, start_hint="pipeline embed deploy -c demo detach=true").connect()
    assert url in caught.value.message and "pipeline embed deploy -c demo detach=true" in caught.value.fix


def test_not_ready_is_said(serve):
    with pytest.raises(PipelineError, match="answers 503"):
        client(serve(lambda body, _: reply(body), ready=503))


def test_a_server_that_goes_away_ends_in_a_message(serve):
    service = serve(lambda body, _: reply(body))
    nim = client(service, max_retries=1, timeout=2)
    service.stop()
    with pytest.raises(PipelineError, match="failed after 2 tries"):
        nim.embed(["a"], "query")


def test_the_system_keeps_the_order_of_the_corpus(serve, tiny, tmp_path):
    """Batches are sorted by length on the way out; each vector must come back to its own passage."""
    service = serve(lambda body, _: reply(body))
    system = NimSystem(client(service), batch_size=2, corpus_chunk_size=4, checkpoint="c", scratch=tmp_path)
    with system.open(tiny.corpus) as index:
        ranking = index.search({"q": "e"}, 3)
    expected = {key: float(np.dot(vector("e"), vector(item.text))) for key, item in tiny.corpus.items()}
    best = sorted(expected, key=lambda key: -expected[key])[:3]
    assert list(ranking["q"]) == best
    assert [ranking["q"][key] for key in best] == pytest.approx([expected[key] for key in best])
    assert max(len(body["input"]) for body in service.requests) == 2


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

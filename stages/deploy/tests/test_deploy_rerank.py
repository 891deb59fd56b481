"""The running reranker, asked over HTTP in each of the forms that it answers."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from pipeline.contract import EncodingContract
from pipeline.retrieval.cross_encoder import CrossEncoder

NAME = "nvidia/llama-nemotron-rerank-1b-v2"
"""The documented model; conftest serves the tiny one under its name."""
QUERY = "why does the pump hum?"
PASSAGES = ["The pump hums when air is in the pipe.", "Ölfässer " * 300, "なぜ鳴る?", "", "The weather is sunny today."]
PATHS = ["/v1/ranking", "/v1/rerank", "/v2/rerank", "/rerank"]


def body_for(path, passages=PASSAGES, query=QUERY, **more):
    """A request to `path` in the form that it wants."""
    if path == "/v1/ranking":
        texts = {"query": {"text": query}, "passages": [{"text": text} for text in passages]}
        return {"model": NAME, **texts, **more}
    if path == "/rerank":
        return {"query": query, "texts": passages, **more}
    return {"model": NAME, "query": query, "documents": passages, **more}


def post(service, path, body):
    """(status, parsed body) of a POST."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urlopen(Request(service.url + path, data), timeout=30) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        return error.code, json.load(error)


def ask(service, path, **what):
    status, reply = post(service, path, body_for(path, **what))
    assert status == 200, reply
    return reply


def logits(service, **what):
    """Logits in the order of the passages."""
    rankings = ask(service, "/v1/ranking", **what)["rankings"]
    assert sorted(item["index"] for item in rankings) == list(range(len(rankings)))
    return np.array([item["logit"] for item in sorted(rankings, key=lambda item: item["index"])])


@pytest.fixture(scope="module")
def service(rerank_deployment):
    return rerank_deployment.service


@pytest.fixture(scope="module")
def torch_model(reranker):
    return CrossEncoder.load(str(reranker), EncodingContract.load(reranker))


def test_logits_are_those_of_the_checkpoint_best_first(service, torch_model):
    expected = torch_model.score([QUERY] * len(PASSAGES), PASSAGES)
    assert np.ptp(expected) > 0.1, "the tiny model tells passages apart"
    reply = ask(service, "/v1/ranking")
    assert [item["index"] for item in reply["rankings"]] == np.argsort(-expected, kind="stable").tolist()
    assert np.abs(logits(service) - expected).max() < 1e-4
    tokens = sum(len(ids) for ids in torch_model.tokenize([QUERY] * len(PASSAGES), PASSAGES)[0])
    assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.parametrize(("path", "field"), [("/v1/ranking", "rankings"), ("/v1/rerank", "results"), ("/rerank", None)])
def test_equal_passages_keep_their_order(service, path, field):
    reply = ask(service, path, passages=["a lamp", "a pump", "a lamp", "a pump", "a lamp"])
    order = [item["index"] for item in (reply[field] if field else reply)]
    assert order in ([0, 2, 4, 1, 3], [1, 3, 0, 2, 4])


def test_a_passage_is_cut_at_either_end_or_refused(service, torch_model):
    passage = " ".join(f"word{n}" for n in range(60))
    tokenizer, limit = torch_model.tokenizer, torch_model.contract.max_length("pair")
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (QUERY, passage))
    room, (cls, sep) = limit - 3 - len(first), (tokenizer.cls_token_id, tokenizer.sep_token_id)
    pairs = [[cls, *first, sep, *kept, sep] for kept in (second[:room], second[-room:])]
    expected = torch_model.score_tokens((pairs, [len(first) + 2] * 2))
    found = [logits(service, passages=[passage], truncate=side)[0] for side in ("END", "START")]
    assert abs(expected[0] - expected[1]) > 1e-3 and np.abs(found - expected).max() < 1e-4
    for left in ("left", "Left"):
        score = ask(service, "/rerank", passages=[passage], truncation_direction=left, raw_scores=True)[0]["score"]
        assert score == pytest.approx(found[1], abs=1e-5)
    for path, how in (("/v1/ranking", {"truncate": "NONE"}), ("/rerank", {"truncate": False})):
        status, reply = post(service, path, body_for(path, ["short", passage], **how))
        assert status == 400 and reply["error"]["code"] == "text_too_long"
        assert f"text 1 has {len(first) + len(second) + 3} tokens, the limit is {limit}" in reply["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_cohere_and_jina(service, path):
    expected = 1 / (1 + np.exp(-logits(service)))
    reply = ask(service, path)
    assert reply["model"] == NAME and reply["id"]
    assert reply["usage"]["total_tokens"] == reply["meta"]["tokens"]["input_tokens"] > 0
    scores = {item["index"]: item["relevance_score"] for item in reply["results"]}
    assert [scores[index] for index in range(len(PASSAGES))] == pytest.approx(expected, abs=1e-5)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert all(set(item) == {"index", "relevance_score"} for item in reply["results"])

    objects = [{"text": text, "title": "not read"} for text in PASSAGES]
    best = ask(service, path, passages=objects, query={"text": QUERY}, top_n=2, return_documents=True)["results"]
    assert best == [{**item, "document": {"text": PASSAGES[item["index"]]}} for item in reply["results"][:2]]


def test_text_embeddings_inference(service):
    raw = ask(service, "/rerank", raw_scores=True)
    assert [item["score"] for item in sorted(raw, key=lambda item: item["index"])] == pytest.approx(logits(service))
    plain = ask(service, "/rerank", return_text=True)
    assert [item["index"] for item in plain] == [item["index"] for item in raw]
    assert [item["text"] for item in plain] == [PASSAGES[item["index"]] for item in plain]
    chances = 1 / (1 + np.exp([-item["score"] for item in raw]))
    assert [item["score"] for item in plain] == pytest.approx(chances, abs=1e-5)


def test_concurrent_requests_give_the_numbers_of_one_by_one(service, torch_model):
    questions = [f"{'very ' * (n % 9)}old pump number {n}" for n in range(24)]
    passages = ["oil", "the pump hums " * 8, "a lamp in the mast", "rail"]
    alone = [logits(service, query=question, passages=passages) for question in questions]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda question: logits(service, query=question, passages=passages), questions))
    assert np.abs(np.array(together) - np.array(alone)).max() < 1e-5
    assert np.abs(alone[5] - torch_model.score([questions[5]] * 4, passages)).max() < 1e-4


@pytest.mark.parametrize("path", PATHS)
def test_every_form_refuses_what_is_wrong_in_openais_shape(service, path):
    field = {"/v1/ranking": "passages", "/rerank": "texts"}.get(path, "documents")
    lacking = body_for(path)
    del lacking[field]
    wrong = [
        (body_for(path, passages=[]), 400, f"{field}: must not be an empty list", field),
        (body_for(path, query=""), 400, "query: must not be an empty text", "query"),
        (lacking, 400, f"{field}: field required", field),
        ({**body_for(path), field: ["a", 5]}, 400, f"{field}[1]: input should be a valid string", field),
        ({**body_for(path), field: ["a", {"image": "x"}]}, 400, "an object needs the field `text`", field),
        (body_for(path, passages=["a"] * 81), 413, "81 texts in one request, at most 80", field),
        (b"{not json", 400, "invalid JSON", None),
    ]
    if path != "/rerank":
        wrong.append(({**body_for(path), "model": "gpt"}, 404, f"{NAME!r} is", "model"))
    for body, status, message, param in wrong:
        found, reply = post(service, path, body)
        assert (found, set(reply)) == (status, {"error"}), reply
        assert set(reply["error"]) == {"message", "type", "param", "code"} and reply["error"]["param"] == param
        assert message in reply["error"]["message"] and reply["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "more", "message"),
    [
        ("/v1/ranking", {"truncate": "MIDDLE"}, "truncate: input should be 'NONE', 'START' or 'END'"),
        ("/v1/rerank", {"top_n": 0}, "top_n: input should be greater than or equal to 1"),
        ("/rerank", {"truncation_direction": "up"}, "truncation_direction: input should be 'Left' or 'Right'"),
    ],
)
def test_values_of_one_form_are_checked(service, path, more, message):
    status, reply = post(service, path, body_for(path, **more))
    assert status == 400 and message in reply["error"]["message"]


def test_an_embeddings_client_is_told_what_is_served(service):
    status, reply = post(service, "/v1/embeddings", {"input": "a", "model": NAME})
    assert status == 404 and f"rankings: POST {', '.join(PATHS)}" in reply["error"]["message"]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_documented_curl_works(rerank_deployment):
    body = f"""{{
      "model": "{NAME}",
      "query": {{"text": "what is AI?"}},
      "passages": [{{"text": "AI is artificial intelligence"}}, {{"text": "The weather is sunny today"}}],
      "truncate": "END"
    }}"""
    url = f"http://localhost:{rerank_deployment.port}/v1/ranking"
    command = ["curl", "-sS", "-X", "POST", url, "-H", "Content-Type: application/json", "-d", body]
    rankings = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["rankings"]
    assert {item["index"] for item in rankings} == {0, 1} and rankings[0]["logit"] > rankings[1]["logit"]


def test_health_identity_and_metrics(service, exported_reranker):
    def get(path):
        with urlopen(service.url + path, timeout=10) as reply:
            return reply.read().decode()

    assert json.loads(get("/v1/health/ready"))["status"] == "ready"
    assert [item["id"] for item in json.loads(get("/v1/models"))["data"]] == [NAME]
    facts, written = json.loads(get("/v1/metadata")), json.loads((exported_reranker / "metadata.json").read_text())
    assert facts["contract_digest"] == written["contract_digest"] == service.contract_digest
    assert (facts["family"], facts["rerank_max_length"], facts["prompt_template"]) == ("rerank", 64, None)
    ask(service, "/rerank", passages=["a", "b", "c"])
    metrics = get("/metrics")
    assert 'pipeline_requests_total{path="/rerank",status="200"}' in metrics
    assert 'pipeline_texts_total{input_type="pair"}' in metrics
    assert set(PATHS) <= set(json.loads(get("/openapi.json"))["paths"])


def test_the_verbs_find_the_service(rerank_deployment):
    def verb(name):
        command = [sys.executable, "-m", "pipeline", "rerank", name, f"run_dir={rerank_deployment.run_dir}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert f"ready: {rerank_deployment.service.url}" in verb("deploy-status")
    assert f"{NAME} ready at" in verb("deploy-logs")

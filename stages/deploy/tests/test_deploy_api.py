"""The running service, asked over HTTP as clients ask it."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import openai
import pytest

from pipeline.contract import EncodingContract
from pipeline.retrieval.encoder import BiEncoder

TEXTS = ["pump", "Alarm E-104 means that the sieve column is blocked.", "Ölfässer " * 300, "なぜ鳴る?", "a b c"]


@pytest.fixture(scope="module")
def client(deployment):
    return openai.OpenAI(base_url=deployment.service.url + "/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def torch_model(checkpoint):
    return BiEncoder.load(str(checkpoint), EncodingContract.load(checkpoint))


def embed(client, texts, kind="query", truncate="END", **how):
    extra = {"input_type": kind, "truncate": truncate}
    reply = client.embeddings.create(model="custom", input=texts, extra_body=extra, **how)
    assert [item.index for item in reply.data] == list(range(len(reply.data)))
    return np.array([item.embedding for item in reply.data], dtype=np.float32)


def post(deployment, body, content_type="application/json"):
    """(status, parsed body) of a raw POST."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(deployment.service.url + "/v1/embeddings", data, {"Content-Type": content_type})
    try:
        with urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        return error.code, json.load(error)


def get(deployment, path):
    with urlopen(deployment.service.url + path, timeout=10) as reply:
        return reply.read().decode()


@pytest.mark.parametrize("kind", ["query", "passage"])
def test_vectors_are_those_of_the_checkpoint_with_its_prompt(client, torch_model, kind):
    expected = torch_model.encode_queries(TEXTS) if kind == "query" else torch_model.encode_passages(TEXTS)
    assert np.abs(embed(client, TEXTS, kind) - expected).max() < 1e-4


def test_query_and_passage_differ(client):
    assert np.abs(embed(client, TEXTS, "query") - embed(client, TEXTS, "passage")).max() > 0.01


def test_the_clients_default_base64_and_float_agree(client):
    default = embed(client, TEXTS)
    assert np.array_equal(default, embed(client, TEXTS, encoding_format="float"))
    raw = client.embeddings.create(
        model="custom", input="pump", encoding_format="base64", extra_body={"input_type": "query"}
    )
    assert isinstance(raw.data[0].embedding, str)
    assert np.array_equal(np.frombuffer(b64decode(raw.data[0].embedding), "<f4"), default[0])


def test_a_string_is_one_text_and_usage_counts_tokens(client, torch_model):
    reply = client.embeddings.create(model="custom", input="pump", extra_body={"input_type": "query"})
    tokens = len(torch_model.tokenize(["query: pump"], "query")[0])
    assert len(reply.data) == 1 and reply.usage.prompt_tokens == reply.usage.total_tokens == tokens


def test_input_type_is_query_unless_said_otherwise_and_may_stand_in_the_name(client):
    def plain(model):
        return np.array(client.embeddings.create(model=model, input=["pump"]).data[0].embedding, dtype=np.float32)

    assert np.array_equal(plain("custom"), embed(client, ["pump"], "query")[0])
    assert np.array_equal(plain("custom-passage"), embed(client, ["pump"], "passage")[0])


def test_truncation_at_either_end_or_refusal(client, torch_model):
    text = " ".join(f"word{n}" for n in range(100))
    end, start = (embed(client, [text], truncate=side)[0] for side in ("END", "START"))
    limit = torch_model.contract.query_max_length
    ids = torch_model.tokenizer("query: " + text)["input_ids"]
    expected = torch_model.encode_tokens([[*ids[: limit - 1], ids[-1]], [ids[0], *ids[-(limit - 1) :]]])
    assert np.abs(np.stack([end, start]) - expected).max() < 1e-4
    with pytest.raises(openai.BadRequestError, match=f"the limit is {limit}"):
        client.embeddings.create(model="custom", input=text, extra_body={"truncate": "NONE"})


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "custom"}, 400, "input: field required"),
        ({"input": "a"}, 400, "model: field required"),
        ({"input": [], "model": "custom"}, 400, "empty list"),
        ({"input": "", "model": "custom"}, 400, "empty text"),
        ({"input": ["a", ""], "model": "custom"}, 400, "empty text"),
        ({"input": [1, 2], "model": "custom"}, 400, "token ids are not accepted"),
        ({"input": [[1, 2]], "model": "custom"}, 400, "token ids are not accepted"),
        ({"input": "a", "model": "custom", "input_type": "document"}, 400, "'query' or 'passage'"),
        ({"input": "a", "model": "custom", "encoding_format": "int8"}, 400, "encoding_format"),
        ({"input": "a", "model": "custom", "dimensions": 5}, 400, "this model gives 384, not 5"),
        ({"input": "a", "model": "custom-passage", "input_type": "query"}, 400, "contradicts"),
        ({"input": "a", "model": "gpt"}, 404, "'custom' is"),
        ({"input": ["a"] * 2049, "model": "custom"}, 413, "2049 texts in one request, at most 2048"),
        ([1], 400, "object"),
        (b"{not json", 400, "invalid JSON"),
    ],
)
def test_refusals_have_openais_shape(deployment, body, status, message):
    found, reply = post(deployment, body)
    assert found == status
    assert set(reply) == {"error"} and set(reply["error"]) == {"message", "type", "param", "code"}
    assert message in reply["error"]["message"] and reply["error"]["type"] == "invalid_request_error"


def test_openais_client_raises_its_own_errors(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="gpt", input="a")
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


def test_dimensions_may_be_said_if_right(client):
    assert len(client.embeddings.create(model="custom", input="a", dimensions=384).data[0].embedding) == 384


def test_an_unknown_path_says_what_is_served(deployment):
    with pytest.raises(HTTPError) as caught:
        get(deployment, "/v1/ranking")
    assert caught.value.code == 404
    message = json.load(caught.value)["error"]["message"]
    assert "/v1/ranking: Not Found" in message and "embeddings: POST /v1/embeddings" in message


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("header", [["-H", "Content-Type: application/json"], []])
def test_the_documented_curl_works(deployment, header):
    body = '{"input": ["What cooling is needed for 8 GPUs?"], "model": "custom", "input_type": "query"}'
    url = f"http://localhost:{deployment.port}/v1/embeddings"
    asked = subprocess.run(["curl", "-sS", "-X", "POST", url, *header, "-d", body], capture_output=True, check=True)
    assert len(json.loads(asked.stdout)["data"][0]["embedding"]) == 384


def test_health_models_and_identity(deployment, client, exported):
    assert json.loads(get(deployment, "/v1/health/ready"))["status"] == "ready"
    assert json.loads(get(deployment, "/v1/health/live"))["status"] == "live"
    assert [item.id for item in client.models.list()] == ["custom"]
    metadata = json.loads(get(deployment, "/v1/metadata"))
    written = json.loads((exported / "metadata.json").read_text())
    assert metadata["contract_digest"] == written["contract_digest"] == deployment.service.contract_digest
    assert metadata["model_sha256"] == written["files"]["model.onnx"]["sha256"]


def test_metrics_count_requests_texts_and_tokens(deployment, client):
    def value(series):
        lines = [line for line in get(deployment, "/metrics").splitlines() if line.startswith(series)]
        return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0

    series = [
        'pipeline_requests_total{path="/v1/embeddings",status="200"}',
        'pipeline_texts_total{input_type="passage"}',
    ]
    before = [value(item) for item in series]
    embed(client, ["a", "b", "c"], "passage")
    assert [value(item) for item in series] == [before[0] + 1, before[1] + 3]


def test_concurrent_requests_get_their_own_vectors_and_health_stays_responsive(deployment, client, torch_model):
    texts = [f"alarm number {n} of the {'very ' * (n % 9)}old pump" for n in range(60)]
    expected = torch_model.encode_queries(texts)
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        large = pool.submit(embed, client, ["a long passage about pumps and tanks " * 20] * 60, "passage")
        small = [pool.submit(embed, client, [text]) for text in texts]
        asked = 0
        while not large.done():
            assert json.loads(get(deployment, "/v1/health/ready"))["status"] == "ready"
            asked += 1
            time.sleep(0.05)
        vectors = np.concatenate([each.result() for each in small])
    assert np.abs(vectors - expected).max() < 1e-4
    assert asked > 1 and large.result().shape == (60, 384)


def test_the_server_needs_neither_torch_nor_transformers():
    code = (
        "import sys, pipeline_deploy.server, pipeline_deploy.main; "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "[]"

"""Rescoring: a tiny reranker, and a real HTTP server that misbehaves on purpose."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import torch
from pipeline_prep.mining import judge
from pipeline_prep.mining.judge import FAILURES_IN_A_ROW, JOURNAL, LlmRescorer
from pipeline_prep.mining.rescore import CrossEncoderRescorer, answers_found, make_rescorer
from pipeline_prep.mining.verdicts import VerdictJournal, probability
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.schemas.prep import EmbedPrepConfig

KEY = "sk-very-secret"
Answer = tuple[int, dict[str, str], str] | None


def completion(content: str) -> str:
    message = {"role": "assistant", "content": content}
    return json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m",
                       "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})  # fmt: skip


class Server:
    """Says yes to a passage with "right" in it. `misbehave(body, number)` may answer instead; None hangs up."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.misbehave: Callable[[dict[str, Any], int], Any] = lambda body, number: False
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.requests.append(body)
                    server.keys.append(self.headers["Authorization"])
                    number = len(server.requests)
                answer: Answer = server.misbehave(body, number) or (None if server.hangs else server.proper(body))
                if answer is None:
                    self.connection.close()
                    return
                status, headers, text = answer
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Retry-After-Ms": "1", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.hangs = False
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    @staticmethod
    def proper(body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        passage = body["messages"][-1]["content"].split("<passage>")[1]
        return 200, {}, completion(json.dumps({"answers": "right" in passage, "confidence": 0.9}))

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def task(mining_task):
    return mining_task([f"{'right' if n % 2 else 'wrong'} number {n}" for n in range(20)], ["a $q {x}?"], [[0]])


ROW, PASSAGE = np.zeros(12, np.int64), np.arange(12)
EXPECTED = np.where(PASSAGE % 2, 0.9, 0.1)


@pytest.fixture
def rescorer(server, tmp_path):
    made: list[LlmRescorer] = []

    def make(**more: Any) -> LlmRescorer:
        made.append(LlmRescorer("m", server.url, tmp_path, **{"max_retries": 1, "timeout": 5.0} | more))
        return made[-1]

    yield make
    for item in made:
        item.close()


def test_every_pair_is_asked_about_once_even_by_another_process(server, rescorer, task):
    found = rescorer().probabilities(task, ROW, PASSAGE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, EXPECTED, atol=1e-6)
    assert len(server.requests) == 12
    sent = server.requests[0]
    assert sent["response_format"]["json_schema"]["strict"] is True and sent["temperature"] == 0
    assert "a $q {x}?" in sent["messages"][0]["content"] and "wrong number 0" in sent["messages"][0]["content"]
    np.testing.assert_array_equal(rescorer().probabilities(task, ROW, PASSAGE), found)
    assert len(server.requests) == 12
    rescorer().probabilities(replace(task, questions=["another?"]), ROW[:1], PASSAGE[:1])
    assert len(server.requests) == 13


def test_an_endpoint_without_response_format_is_asked_by_the_prompt_alone(server, rescorer, task):
    server.misbehave = lambda body, number: "response_format" in body and (400, {}, '{"error": "no"}')
    np.testing.assert_allclose(rescorer().probabilities(task, ROW, PASSAGE), EXPECTED, atol=1e-6)
    assert len(server.requests) == 13 and "temperature" not in server.requests[-1]


def test_errors_and_garbage_cost_their_own_pair_alone(server, rescorer, task, caplog):
    wrong = {"number 3\n": (500, {}, "{}"), "number 5\n": (200, {}, completion("I cannot say")),
             "number 7\n": (200, {}, "<html>"), "number 9\n": (400, {}, "{}")}  # fmt: skip
    server.misbehave = lambda body, number: next(
        (answer for text, answer in wrong.items() if text in body["messages"][0]["content"]), False
    )
    found = rescorer().probabilities(task, ROW, PASSAGE)
    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 5, 7, 9]
    assert "no verdict on 4 of 12 pairs" in caplog.text
    assert not answers_found(found, 0.5)[[3, 5, 7, 9]].any()
    made, server.misbehave = len(server.requests), lambda body, number: False
    again = rescorer().probabilities(task, ROW, PASSAGE)
    assert len(server.requests) - made == 3  # "I cannot say" was paid for and stays; calls that failed are made again
    assert np.flatnonzero(np.isnan(again)).tolist() == [5]


def test_a_server_that_stops_answering_ends_the_run_and_keeps_what_was_paid_for(server, rescorer, task, monkeypatch):
    monkeypatch.setattr(judge, "CALLS_AT_ONCE", 1)
    server.misbehave = lambda body, number: number > 4 and (503, {}, "{}")
    with pytest.raises(
        PipelineError, match=f"{FAILURES_IN_A_ROW} calls in a row failed, the last with .*503"
    ) as caught:
        rescorer(max_retries=0).probabilities(task, ROW, PASSAGE)
    assert "finished calls are in the journal" in caught.value.fix
    assert len(server.requests) == 4 + FAILURES_IN_A_ROW
    server.misbehave = lambda body, number: False
    np.testing.assert_allclose(rescorer().probabilities(task, ROW, PASSAGE), EXPECTED, atol=1e-6)
    assert len(server.requests) == 4 + FAILURES_IN_A_ROW + 8


def test_a_connection_that_is_cut_is_an_error_at_once_at_first_and_a_failure_later(server, rescorer, task):
    server.hangs = True
    with pytest.raises(PipelineError, match=r"cannot reach http://127\.0\.0\.1"):
        rescorer(max_retries=0).probabilities(task, ROW, PASSAGE)
    assert len(server.requests) == 1
    server.hangs, working = False, rescorer(max_retries=0)
    working.probabilities(task, ROW[:1], PASSAGE[:1])
    server.hangs = True
    with pytest.raises(PipelineError, match="calls in a row failed, the last with no answer"):
        working.probabilities(task, ROW, PASSAGE)


@pytest.mark.parametrize(("status", "message"), [(401, "refused the API key"), (404, "no such model or path")])
def test_a_wrong_key_or_model_ends_the_run_at_once(server, rescorer, task, status, message):
    server.misbehave = lambda body, number: (status, {}, "{}")
    with pytest.raises(PipelineError, match=message):
        rescorer().probabilities(task, ROW, PASSAGE)
    assert len(server.requests) == 1


def test_the_key_is_sent_and_stands_nowhere(server, rescorer, task, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(0)
    server.misbehave = lambda body, number: number > 1 and (500, {}, json.dumps({"error": {"message": f"bad {KEY}"}}))
    with pytest.raises(PipelineError) as caught:
        rescorer(key_env="MY_KEY", max_retries=0).probabilities(task, ROW, PASSAGE)
    assert server.keys[0] == f"Bearer {KEY}"
    assert KEY not in f"{caught.value}{caplog.text}" and "***" in str(caught.value)
    assert KEY not in (tmp_path / JOURNAL).read_text()
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(PipelineError, match=r"rescore_api_key_env=MY_KEY: .* is not set"):
        rescorer(key_env="MY_KEY")


def test_texts_leave_the_machine_only_when_that_is_allowed(tmp_path, caplog):
    caplog.set_level("INFO", "pipeline")
    with pytest.raises(PipelineError, match=r"sent to llm\.example\.org, but allow_remote=no"):
        LlmRescorer("m", "https://llm.example.org/v1", tmp_path / "no")
    assert not (tmp_path / "no").exists()
    LlmRescorer("m", "https://llm.example.org/v1", tmp_path, allow_remote=True).close()
    assert "nearest passages (rescore_top of them) will be sent to llm.example.org" in caplog.text
    with pytest.raises(PipelineError, match="is no address of an API"):
        LlmRescorer("m", "localhost:8000", tmp_path)


def test_a_redirect_does_not_carry_texts_away(server, rescorer, task):
    elsewhere = Server()
    server.misbehave = lambda body, number: (307, {"Location": f"{elsewhere.url}/chat/completions"}, "")
    with pytest.raises(PipelineError, match="calls in a row failed"):
        rescorer(max_retries=0).probabilities(task, ROW, PASSAGE)
    elsewhere.close()
    assert not elsewhere.requests


def test_a_torn_last_line_is_cut_off_and_a_broken_one_is_left_out(tmp_path, caplog):
    path = tmp_path / "journal.jsonl"
    journal = VerdictJournal(path)
    for key in ("a", "b"):
        journal.put(key, "m", f"reply {key}")
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:10] + b"\xff\x00\n" + whole + whole[:17])
    journal = VerdictJournal(path)
    assert (len(journal), journal["a"], journal["b"]) == (2, "reply a", "reply b")
    assert "1 lines cannot be read" in caplog.text
    journal.put("c", "m", "reply c")
    journal.close()
    again = VerdictJournal(path)
    assert len(again) == 3 and again["c"] == "reply c"
    again.close()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"answers": true, "confidence": 0.8}', 0.8),
        ('<think>{"answers": true}</think>```json\n{"answers": false, "confidence": 0.75}\n```', 0.25),
        ('{"answers": "Yes", "confidence": "0.9"}', 0.9),
        ('{"answers": false, "confidence": 0.1}', 0.1),  # a probability of "yes", not a certainty
        ('{"answers": true}', 1.0),
        ('{"answers": true, "confidence": 95}', None),
        ('{"answers": true, "confidence": NaN}', None),
        ('{"answers": true, "confidence": null}', None),
        ('{"answers": 1, "confidence": 0.5}', None),
        ('{"answers": tr', None),
        ("[]", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_or_it_is_none(reply, expected):
    found = probability(reply)
    assert math.isnan(found) if expected is None else found == pytest.approx(expected)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    """A tiny random reranker under a contract of its own."""
    folder = tmp_path_factory.mktemp("reranker")
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "bert", vocab_size=30522, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=66, num_labels=1,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    for weight in model.parameters():
        weight.data *= 3
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_model("embedded:all-MiniLM-L6-v2")).save_pretrained(folder)
    EncodingContract("rerank", passage_prefix="p: ", rerank_max_length=40).save(folder)
    return folder


def config(**more: Any) -> EmbedPrepConfig:
    return EmbedPrepConfig(**{"rescore_model": "m", "encode_batch_tokens": 64, "precision": "fp32", **more})


def test_a_reranker_scores_under_its_own_contract(reranker, mining_task, tmp_path):
    task = mining_task(["the valve sticks", "it " * 60], ["why?", "lamp"], [[0], [1]], titles=["Pump", ""])
    row, passage = np.array([0, 0, 1]), np.array([0, 1, 0])
    made = make_rescorer(config(rescore="cross_encoder", rescore_model=str(reranker)), tmp_path)
    assert isinstance(made, CrossEncoderRescorer) and made.batch_tokens == 64
    found = made.probabilities(task, row, passage)
    model = CrossEncoder.load(str(reranker), EncodingContract("rerank", rerank_max_length=40))
    texts = ["p: Pump the valve sticks", "p: " + "it " * 60, "p: Pump the valve sticks"]
    logits = model.score(["why?", "why?", "lamp"], texts).tolist()
    np.testing.assert_allclose(found, [1 / (1 + math.exp(-logit)) for logit in logits], atol=1e-6)
    assert found.dtype == np.float32 and len(set(found.tolist())) == 3
    assert made.probabilities(task, row[:0], passage[:0]).shape == (0,)


def test_a_reranker_that_gives_no_number_is_an_error_that_names_the_question(mining_task):
    class Broken:
        contract = EncodingContract("rerank")

        def score(self, queries: list[str], passages: list[str], **_: Any) -> np.ndarray:
            return np.array([-1e30, np.nan], np.float32)

    task = mining_task(["one"], ["first?", "second?"], [[0], [0]])
    with pytest.raises(PipelineError, match="no finite score for 1 pairs, the first for the question 'second\\?'"):
        CrossEncoderRescorer(Broken()).probabilities(task, np.array([0, 1]), np.array([0, 0]))


def test_what_is_asked_for_is_made(tmp_path, server, reranker, monkeypatch):
    assert make_rescorer(config(), tmp_path) is None
    made = make_rescorer(config(rescore="llm", rescore_base_url=server.url), tmp_path)
    assert isinstance(made, LlmRescorer) and made.model == "m"
    made.close()
    with pytest.raises(PipelineError, match="allow_remote=no"):
        make_rescorer(config(rescore="llm", rescore_base_url="http://10.0.0.1/v1"), tmp_path)
    embedder = tmp_path / "embedder"
    EncodingContract("embed").save(embedder)
    with pytest.raises(PipelineError, match="is an embedding model"):
        make_rescorer(config(rescore="cross_encoder", rescore_model=str(embedder)), tmp_path)

"""The whole stage with a served reranker that misbehaves: mended, or refused with everything else saved."""

from __future__ import annotations

import json
import shutil

import pytest
from pipeline_eval.endpoints.http import Http
from pipeline_eval.main import main

from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.records.results import FILE_NAME
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.run.stage import execute


@pytest.fixture
def tuned(run_dir, tiny_reranker):
    return shutil.copytree(tiny_reranker, run_dir / "tuned")


@pytest.fixture
def run(run_dir, tiny_model, tuned, monkeypatch):
    """Run the stage with a served model; returns the failure of a gate and the results."""
    monkeypatch.setattr(Http, "_pause", lambda self, seconds: None)

    def start(service, *more):
        overrides = [
            f"run_dir={run_dir}",
            f"eval_data_path={run_dir}/stage1_data_prep/eval_beir",
            f"finetuned_model_path={tuned}",
            f"base_model={tiny_model}",
            f"retrieval_model={tiny_model}",
            "base_retrieval_model=null",
            f"question_sets={{people: {run_dir}/people.jsonl}}",
            f"corpus_dir={run_dir}/documents",
            f"question_sets_corpus={run_dir}/documents",
            "eval_bm25=false",
            "eval_base=false",
            "retrieval_max_length=64",
            "max_length=32",
            "top_k=4",
            "k_values=[1, 4]",
            "bootstrap_samples=100",
            "precision=fp32",
            "device=cpu",
            "eval_nim=true",
            f"nim_url={service.url}",
            "nim_batch_size=3",
        ]
        failure = execute(resolve("rerank", "eval", "demo", [*overrides, *more]), main)
        return failure, json.loads((run_dir / "stage3_eval" / FILE_NAME).read_text())

    return start


@pytest.fixture
def model(tuned):
    return CrossEncoder.load(str(tuned), EncodingContract.load(tuned))


def test_a_service_with_hiccups_gives_the_checkpoints_numbers(run, model, serve, capsys):
    """Shuffled results in Cohere's form, a burst of 503, a 429, NaN, half a reply: all on the way to the same table."""

    def answer(body, number):
        if number < 3:
            return 503, {}, {}
        if number == 5:
            return 429, {}, {"retry-after": "1"}
        texts = body["documents"]
        logits = model.score([body["query"]] * len(texts), texts).tolist()
        results = [{"index": i, "relevance_score": logits[i]} for i in reversed(range(len(texts)))]
        if number == 7:
            results[0]["relevance_score"] = float("nan")
        whole = json.dumps({"model": "custom", "results": results}).encode()
        return 200, whole[:-5] if number == 9 else whole, {}

    one_may_meet_all = "nim_max_retries=6"
    failure, document = run(serve(answer), "nim_api=cohere", "fail_on_nim_metric_drift=true", one_may_meet_all)
    assert failure is None
    assert document["nim"] == document["finetuned"]
    assert document["test_sets"]["people"]["nim"] == document["test_sets"]["people"]["finetuned"]
    seen = document["_metadata"]["nim_diagnostics"]
    assert (seen["api_backend"], seen["requested_model"]) == ("cohere", "custom")
    assert (seen["retried_requests"], seen["invalid_score_retry_requests"]) == (6, 2)
    marks = capsys.readouterr().out.split("served model")[1]
    assert "ok" in marks and "MISMATCH" not in marks


def test_a_service_that_fails_for_good_leaves_the_evidence(run, run_dir, tiny, serve, capsys):
    """It breaks after the first test set: the tuned model, the first stage and what it did give are saved."""
    requests_of_a_set = 2 * len(tiny.queries)  # four candidates in batches of three

    def answer(body, number):
        value = 1.0 if number < requests_of_a_set else float("nan")
        return 200, {"rankings": [{"index": i, "logit": value} for i in range(len(body["passages"]))]}, {}

    failure, document = run(serve(answer), "nim_max_retries=1", "nim_concurrency=1")
    assert "/v1/ranking failed after 2 tries" in failure and "NaN" in failure
    people = document["test_sets"]["people"]
    assert set(people) == {"retriever", "finetuned"}
    assert {"retriever", "finetuned", "nim"} <= set(document)
    assert document["nim"] == document["retriever"]  # equal scores leave the order of the first stage
    compared = {(item["test_set"], item["a"], item["b"]) for item in document["comparisons"]}
    assert ("people", "retriever", "finetuned") in compared
    assert "NaN" in document["_metadata"]["nim_diagnostics"]["error"]
    assert (run_dir / "stage3_eval" / "people" / "finetuned.jsonl").is_file()
    assert "people" in capsys.readouterr().out


def test_another_model_behind_the_address_is_a_mismatch_and_fails_only_when_asked(run, tiny, serve, capsys):
    right = {tiny.queries[query]: tiny.corpus[key].text for query, judged in tiny.qrels.items() for key in judged}

    def know_all(body, _):
        answer = right[body["query"]["text"]]
        logits = [float(item["text"] == answer) for item in body["passages"]]
        return 200, {"rankings": [{"index": i, "logit": logit} for i, logit in enumerate(logits)]}, {}

    service = serve(know_all)
    failure, document = run(service)
    assert failure is None and "MISMATCH" in capsys.readouterr().out
    assert document["nim"]["Recall"]["Recall@1"] == document["retriever"]["Recall"]["Recall@4"]
    assert document["_metadata"]["nim_metric_comparison"]["within_tolerance"] is False
    failure, document = run(service, "fail_on_nim_metric_drift=true")
    assert "drifts" in failure and document["nim"]

"""The whole stage with a served reranker that misbehaves: mended, or refused with everything else saved."""

from __future__ import annotations

import json
import shutil

import pytest
from pipeline_eval.endpoints.http import Http
from pipeline_eval.main import main

from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.results import FILE_NAME
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.encoder import BiEncoder
from pipeline.run.stage import execute


@pytest.fixture
def tuned(run_dir, tiny_reranker):
    return shutil.copytree(tiny_reranker, run_dir / "tuned")


@pytest.fixture
def embedder(run_dir, tiny_model):
    folder = shutil.copytree(tiny_model, run_dir / "embedder")
    EncodingContract(query_max_length=32, passage_max_length=32).save(folder)
    return folder


@pytest.fixture
def run(run_dir, tiny_model, tuned, embedder, monkeypatch):
    """Run the stage with a served model, or with those of `more`; returns the failure of a gate and the results."""
    monkeypatch.setattr(Http, "_pause", lambda self, seconds: None)

    def start(service, *more, family="rerank"):
        overrides = [
            f"run_dir={run_dir}",
            f"eval_data_path={run_dir}/stage1_data_prep/eval_beir",
            f"finetuned_model_path={tuned if family == 'rerank' else embedder}",
            f"base_model={tiny_model}",
            *([f"retrieval_model={tiny_model}", "base_retrieval_model=null"] if family == "rerank" else []),
            f"question_sets={{people: {run_dir}/people.jsonl}}",
            f"corpus_dir={run_dir}/documents",
            f"question_sets_corpus={run_dir}/documents",
            "eval_bm25=false",
            "eval_base=false",
            *(["retrieval_max_length=64"] if family == "rerank" else []),
            "max_length=32",
            "top_k=4",
            "k_values=[1, 4]",
            "bootstrap_samples=100",
            "precision=fp32",
            "device=cpu",
            "eval_nim=true",
            *([f"nim_url={service.url}"] if service else []),
            "nim_batch_size=3",
        ]
        failure = execute(resolve(family, "eval", "demo", [*overrides, *more]), main)
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


def refuse(body, _):
    return 400, {"error": "no"}, {}


def level(body, _):
    """Every passage is as good as any other."""
    return 200, {"rankings": [{"index": i, "logit": 0.0} for i in range(len(body["passages"]))]}, {}


@pytest.fixture
def faithful(model):
    """Answers as the checkpoint would."""

    def answer(body, _):
        texts = [item["text"] for item in body["passages"]]
        logits = model.score([body["query"]["text"]] * len(texts), texts).tolist()
        return 200, {"rankings": [{"index": i, "logit": logit} for i, logit in enumerate(logits)]}, {}

    return answer


def test_of_several_services_each_fails_by_itself(run, run_dir, serve, faithful, capsys):
    """One is right, one refuses, one is not even ready: two errors, and all numbers that there are."""
    good, bad, away = serve(faithful), serve(refuse), serve(refuse, ready=503)
    urls = f"nim_urls={{away: {away.url}, bad: {bad.url}, good: {good.url}}}"
    failure, document = run(None, urls, "nim_max_retries=0", "fail_on_nim_metric_drift=true")
    seen = document["_metadata"]["nim_endpoints"]
    errors = [seen[name]["nim_diagnostics"]["error"] for name in ("nim@away", "nim@bad")]
    assert failure == "; ".join(errors)
    assert errors[0].startswith("the served model away could not be measured") and "503" in errors[0]
    assert errors[1].startswith("the served model bad could not be measured") and "400" in errors[1]
    assert {name for name in document if name.startswith("nim")} == {"nim@good"}  # nim_url is nobody's choice here
    assert document["nim@good"] == document["finetuned"]
    assert document["test_sets"]["people"]["nim@good"] == document["test_sets"]["people"]["finetuned"]
    assert ("finetuned", "nim@good") in {(item["a"], item["b"]) for item in document["comparisons"]}
    assert document["_metadata"]["nim_url"] is None and document["_metadata"]["nim_diagnostics"] is None
    assert {name: item["nim_url"] for name, item in seen.items()} == {
        "nim@away": away.url, "nim@bad": bad.url, "nim@good": good.url,
    }  # fmt: skip
    assert seen["nim@good"]["nim_metric_comparison"]["within_tolerance"] is True
    assert seen["nim@away"]["nim_metric_comparison"] is None
    assert (run_dir / "stage3_eval" / "people" / "nim@good.jsonl").is_file()
    shown = capsys.readouterr().out
    assert "tuned checkpoint -> served model good" in shown and "served model bad" not in shown


def test_services_of_other_runs_stay_and_do_not_decide_about_this_one(run, serve, faithful):
    _, before = run(None, f"nim_urls={{flat: {serve(level).url}}}")
    assert before["nim@flat"] == before["retriever"] != before["finetuned"]
    gate = "fail_on_nim_metric_drift=true"
    failure, both = run(serve(faithful), f"nim_urls={{good: {serve(faithful).url}}}", gate)
    assert failure is None
    assert both["nim"] == both["nim@good"] == both["finetuned"] and both["nim@flat"] == before["nim@flat"]
    measured = both["_metadata"]["measurements"]["synthetic"]
    assert measured["nim@flat"] == before["_metadata"]["measurements"]["synthetic"]["nim@flat"]
    assert set(both["_metadata"]["nim_endpoints"]) == {"nim@flat", "nim@good"} and both["_metadata"]["nim_url"]
    failure, _ = run(None, f"nim_urls={{flat: {serve(level).url}}}", gate)
    assert failure.startswith("the served model flat drifts") and "good" not in failure
    _, other = run(serve(faithful), "top_k=5")
    assert "nim@flat" not in other and "nim@good" not in other and other["nim"]  # they had other candidates


def test_where_no_service_is_ready_nothing_is_measured(run, run_dir, serve):
    urls = [serve(refuse, ready=503).url for _ in range(2)]
    with pytest.raises(PipelineError, match=r"served model one .*503.*; the served model two .*503"):
        run(None, f"nim_urls={{one: {urls[0]}, two: {urls[1]}}}", "nim_max_retries=0")
    assert not (run_dir / "stage3_eval" / FILE_NAME).exists()
    with pytest.raises(PipelineError, match=r"nim_urls\.one='nowhere' is no http\(s\) address"):
        run(None, f"nim_urls={{one: nowhere, two: {urls[1]}}}")


def test_several_embedding_services(run, serve, embedder):
    model = BiEncoder.load(str(embedder), EncodingContract.load(embedder))

    def embed(body, _):
        encode = model.encode_queries if body["input_type"] == "query" else model.encode_passages
        data = [{"index": i, "embedding": vector} for i, vector in enumerate(encode(body["input"]).tolist())]
        return 200, {"data": data, "model": "custom"}, {}

    urls = f"nim_urls={{one: {serve(embed).url}, two: {serve(refuse).url}}}"
    failure, document = run(None, urls, family="embed")
    assert "served model two could not be measured" in failure and "400" in failure
    assert document["nim@one"] == document["finetuned"] and "nim@two" not in document and "nim" not in document
    seen = document["_metadata"]["nim_endpoints"]["nim@one"]
    assert seen["nim_model"] == "custom" and seen["nim_diagnostics"]["embedding_dimension"] == 32

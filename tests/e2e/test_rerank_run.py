"""The reranker through all stages: questions of the embed run in, a judged and served reranker out."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

QUERY = "the lamp flickers after rain"
PASSAGES = ["Key seven hangs in hall four.", "The lamp flickers when rain reaches its relay.", "Rain."]


def test_a_run_leaves_the_documented_files(rerank_smoke):
    prep = rerank_smoke.stage("prep")
    assert prep.name == "stage1_prep"
    for name in (
        "train.json",
        "train_mined.automodel_unrolled.json",
        "corpus/train.parquet",
        "eval_beir/queries.jsonl",
    ):
        assert (prep / name).is_file(), name
    for stage in ("prep", "finetune", "eval", "export"):
        assert rerank_smoke.manifest(stage)["family"] == "rerank"
    assert (rerank_smoke.stage("export") / "onnx" / "model.onnx").is_file()


def test_the_stack_is_in_the_results_with_confidence(rerank_smoke):
    results = rerank_smoke.json("eval", "eval_results.json")
    assert {"bm25", "base_retriever", "retriever", "hybrid", "base", "finetuned"} <= set(results)
    facts = results["_metadata"]["measurements"]["synthetic"]["base"]["facts"]
    assert facts["note"] == "untrained head"
    compared = {(item["a"], item["b"]) for item in results["comparisons"]}
    assert {("retriever", "finetuned"), ("base", "finetuned"), ("base_retriever", "finetuned")} <= compared
    for item in results["comparisons"]:
        assert item["ci95"][0] <= item["delta"] <= item["ci95"][1]
    ceiling = results["_metadata"]["candidates"]["synthetic"]["recall"]
    assert ceiling == results["retriever"]["Recall"]["Recall@10"]
    for system in ("base", "finetuned"):  # the same ten passages in another order
        assert results[system]["Recall"]["Recall@10"] == ceiling


def test_the_same_run_again_does_nothing(rerank_smoke):
    assert rerank_smoke("run", "--from", "prep").stdout.count("fresh, skipped") == 4


def test_the_reranker_is_served_and_measured_over_http(rerank_smoke):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rerank_smoke("deploy", "detach=true", f"host_port={port}")
    url = f"http://127.0.0.1:{port}"
    try:
        body = {"model": "custom", "query": {"text": QUERY}, "passages": [{"text": text} for text in PASSAGES]}
        ranked = _post(f"{url}/v1/ranking", {**body, "truncate": "END"})["rankings"]
        assert sorted(item["index"] for item in ranked) == [0, 1, 2]
        logits = [item["logit"] for item in ranked]
        assert logits == sorted(logits, reverse=True)
        assert np.allclose(
            [logits[[item["index"] for item in ranked].index(i)] for i in range(3)], _torch(rerank_smoke), atol=1e-3
        )
        cohere = _post(f"{url}/v1/rerank", {"model": "custom", "query": QUERY, "documents": PASSAGES, "top_n": 2})
        assert [item["index"] for item in cohere["results"]] == [item["index"] for item in ranked][:2]
        tei = _post(f"{url}/rerank", {"query": QUERY, "texts": PASSAGES})
        assert [item["index"] for item in tei] == [item["index"] for item in ranked]
        with pytest.raises(urllib.error.HTTPError) as refused:
            _post(f"{url}/v1/embeddings", {"model": "custom", "input": "x"})
        assert refused.value.code == 404

        before = rerank_smoke.json("eval", "eval_results.json")
        of_eval = [item.removeprefix("eval.") for item in rerank_smoke.also if item.startswith("eval.")]
        rerank_smoke("eval", "eval_nim=true", "eval_base=false", f"nim_url={url}", *of_eval)
        merged = rerank_smoke.json("eval", "eval_results.json")
        assert merged["base"] == before["base"] and merged["retriever"] == before["retriever"]
        for name, value in merged["finetuned"]["NDCG"].items():
            assert abs(merged["nim"]["NDCG"][name] - value) <= (0.03 if int(name.split("@")[1]) < 5 else 0.01)
    finally:
        rerank_smoke("deploy-stop")
    assert rerank_smoke("deploy-status", check=False).returncode == 1


def _post(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


def _torch(run) -> np.ndarray:
    """What the checkpoint itself says of PASSAGES."""
    from pipeline.contract import EncodingContract
    from pipeline.retrieval.cross_encoder import CrossEncoder

    folder = (run.stage("finetune") / "checkpoints" / "LATEST" / "model" / "consolidated").resolve()
    return CrossEncoder.load(str(folder), EncodingContract.load(folder)).score([QUERY] * 3, PASSAGES)

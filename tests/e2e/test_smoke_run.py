"""Documents in, a judged and served model out; then the same again, with changes, and over HTTP."""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import urllib.error
import urllib.request

import numpy as np
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_run_leaves_the_documented_files(smoke):
    sdg, prep, finetune = smoke.stage("sdg"), smoke.stage("prep"), smoke.stage("finetune")
    assert list(sdg.glob("generated_batch0_0_*.json"))
    for name in (
        "train.json", "val.json", "train_mined.automodel.json", "train_mined.automodel_unrolled.json",
        "corpus/train.parquet", "corpus/merlin_metadata.json",
        "eval_beir/corpus.jsonl", "eval_beir/queries.jsonl", "eval_beir/qrels/test.tsv",
    ):  # fmt: skip
        assert (prep / name).is_file(), name
    consolidated = finetune / "checkpoints" / "LATEST" / "model" / "consolidated"
    for name in ("config.json", "model.safetensors", "modules.json", "encoding_contract.json", "tokenizer.json"):
        assert (consolidated / name).is_file(), name
    assert (finetune / "checkpoints" / "training.jsonl").is_file()
    assert (finetune / "logs" / "train.log").is_file()
    assert (smoke.stage("eval") / "eval_results.json").is_file()
    assert (smoke.stage("export") / "onnx" / "model.onnx").is_file()
    for stage in ("sdg", "prep", "finetune", "eval", "export"):
        assert smoke.manifest(stage)["stage"] == stage


def test_the_results_hold_every_system_with_confidence(smoke):
    results = smoke.json("eval", "eval_results.json")
    for system in ("base", "finetuned", "bm25"):
        assert 0 <= results[system]["NDCG"]["NDCG@10"] <= 1
    comparison = next(item for item in results["comparisons"] if (item["a"], item["b"]) == ("base", "finetuned"))
    low, high = comparison["ci95"]
    assert low <= comparison["delta"] <= high and 0 <= comparison["p"] <= 1
    assert comparison["verdict"] in ("better", "worse", "indistinguishable")


def test_question_sets_of_another_corpus_are_skipped_with_a_line(smoke):
    log = (smoke.stage("eval") / "logs" / "latest.log").read_text()
    assert re.search(r"demo_(dev|test).*skip|skip.*demo_(dev|test)", log)
    assert "demo_test" not in smoke.json("eval", "eval_results.json").get("test_sets", {})


def test_the_same_run_again_does_nothing(smoke):
    again = smoke("run")
    assert again.stdout.count("fresh, skipped") == 5
    status = smoke("status")
    assert status.stdout.count("done") == 5 and "missing" in status.stdout


def test_no_server_outlives_sdg_and_no_secret_is_written(smoke, monkeypatch):
    monkeypatch.setenv("NVIDIA_API_KEY", "nvapi-must-not-appear")
    smoke("sdg", "seed=43")
    for path in smoke.folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 10_000_000:
            assert b"nvapi-must-not-appear" not in path.read_bytes(), path
    smoke("run")


def test_a_changed_training_key_repeats_only_what_depends_on_it(smoke):
    again = smoke("run", "finetune.learning_rate=1e-5")
    assert re.findall(r"embed (\w+): fresh", again.stdout) == ["sdg", "prep"]
    assert "learning_rate 2e-05 -> 1e-05" in again.stdout or "learning_rate" in again.stdout
    smoke("run")


def test_a_changed_document_is_paid_for_alone(smoke):
    document = next((smoke.corpus / "alarms").glob("*.md"))
    before = smoke.json("sdg", "usage.json")
    text = document.read_text()
    document.write_text(text + "\nThe spare horn of the roof is painted violet and weighs 37 grams.\n")
    try:
        smoke("sdg")
        after = smoke.json("sdg", "usage.json")
        made, reused = _calls(after)
        assert 0 < made < _calls(before)[0] + _calls(before)[1]
        assert reused > made
    finally:
        document.write_text(text)
        smoke("run")


def _calls(usage: dict) -> tuple[int, int]:
    """(calls made, calls taken from the journal)."""
    return usage["total"]["calls_made"], usage["total"]["calls_reused"]


def test_the_model_is_served_and_measured_over_http(smoke):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = smoke("deploy", "detach=true", f"host_port={port}")
    assert f"{port}" in started.stdout
    try:
        url = f"http://127.0.0.1:{port}"
        assert urllib.request.urlopen(f"{url}/v1/health/ready").status == 200
        vectors = _embed(
            url, {"input": ["red lamp", "a much longer text " * 20], "model": "custom", "input_type": "query"}
        )
        coded = _embed(
            url, {"input": "red lamp", "model": "custom", "input_type": "query", "encoding_format": "base64"}
        )
        raw = base64.b64decode(coded[0])
        assert np.allclose(struct.unpack(f"<{len(raw) // 4}f", raw), vectors[0], atol=1e-6)
        with pytest.raises(urllib.error.HTTPError) as refused:
            _embed(url, {"input": [], "model": "custom"})
        assert refused.value.code == 400
        assert smoke("deploy-status").returncode == 0

        before = smoke.json("eval", "eval_results.json")
        smoke("eval", "eval_nim=true", "eval_base=false", f"nim_url={url}")
        merged = smoke.json("eval", "eval_results.json")
        assert merged["base"] == before["base"]
        for name, value in merged["finetuned"]["NDCG"].items():
            assert abs(merged["nim"]["NDCG"][name] - value) <= (0.03 if int(name.split("@")[1]) < 5 else 0.01)
    finally:
        smoke("deploy-stop")
    assert smoke("deploy-status", check=False).returncode == 1
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{url}/v1/health/ready", timeout=2)


def _embed(url: str, body: dict) -> list:
    request = urllib.request.Request(
        f"{url}/v1/embeddings", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return [item["embedding"] for item in json.load(urllib.request.urlopen(request))["data"]]


@pytest.mark.parametrize("kind", ["query", "document"])
def test_sentence_transformers_gives_the_same_vectors(smoke, kind):
    from sentence_transformers import SentenceTransformer

    from pipeline.contract import contract_of_model
    from pipeline.retrieval.encoder import BiEncoder

    folder = (smoke.stage("finetune") / "checkpoints" / "LATEST" / "model" / "consolidated").resolve()
    texts = ["A short one.", "The drip rail carries the letter D in its alarms. " * 8, "x " * 600]
    ours = BiEncoder.load(str(folder), contract_of_model(folder))
    own = ours.encode_queries(texts) if kind == "query" else ours.encode_passages(texts)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts, prompt_name=kind)
    assert np.abs(own - theirs).max() < 1e-5

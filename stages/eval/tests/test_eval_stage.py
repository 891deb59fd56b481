"""The whole stage with the real embedded model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from pipeline_eval.main import main

from pipeline.assets import resolve_model
from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.results import FILE_NAME
from pipeline.retrieval.encoder import BiEncoder
from pipeline.run.freshness import State, status_of
from pipeline.run.manifest import Manifest
from pipeline.run.stage import execute

MODEL = "embedded:all-MiniLM-L6-v2"
TUNED = "stage2_finetune/checkpoints/LATEST/model/consolidated"


@pytest.fixture
def tuned(run_dir) -> Path:
    """A copy of the base in the place of the tuned model, with the contract finetune would write."""
    folder = run_dir / TUNED
    shutil.copytree(resolve_model(MODEL), folder)
    EncodingContract(base_model=MODEL, query_max_length=256, passage_max_length=256).save(folder)
    return folder


def resolved(run_dir, *overrides):
    return resolve(
        "embed",
        "eval",
        "demo",
        [
            f"run_dir={run_dir}",
            f"corpus_dir={run_dir}/documents",
            f"question_sets_corpus={run_dir}/documents",
            f"question_sets={{people: {run_dir}/people.jsonl}}",
            "bootstrap_samples=500",
            "precision=fp32",
            *overrides,
        ],
    )


def run(run_dir, *overrides):
    """Run the stage; returns the failure of a gate, the results and the log."""
    failure = execute(resolved(run_dir, *overrides), main)
    folder = run_dir / "stage3_eval"
    return failure, json.loads((folder / FILE_NAME).read_text()), (folder / "logs" / "latest.log").read_text()


@pytest.mark.slow
def test_a_copy_of_the_base_is_indistinguishable_from_it(run_dir, tuned, capsys):
    failure, document, log = run(run_dir)
    shown = capsys.readouterr().out
    assert failure is None
    assert document["base"] == document["finetuned"]
    assert document["base"]["NDCG"]["NDCG@10"] > 0.8  # an easy set
    assert set(document["test_sets"]["people"]) == {"base", "finetuned", "bm25", "hybrid"}
    copies = [item for item in document["comparisons"] if item["a"] == "base"]
    assert {item["test_set"] for item in copies} == {"synthetic", "people"}
    assert all(
        (item["delta"], item["ci95"], item["p"], item["verdict"]) == (0, [0, 0], 1, "indistinguishable")
        for item in copies
    )
    assert "tuned is not clearly different from base on people" in shown
    assert "fewer than 50 questions" in log
    manifest = Manifest.load(run_dir / "stage3_eval")
    files = [f"{system}.jsonl" for system in ("base", "finetuned", "bm25", "hybrid")]
    files += [
        "bm25_candidates.jsonl",
        "finetuned_candidates.jsonl",
        "breakdown.json",
        "breakdown.md",
        "systems.png",
        "breakdown.png",
    ]
    assert set(manifest.outputs) == {FILE_NAME} | {
        f"{name}/{file}" for name in ("synthetic", "people") for file in files
    }

    _, again, log = run(run_dir)
    for system in ("bm25", "base", "finetuned", "hybrid"):
        assert f"{system}: reused for synthetic, people" in log
    assert again["comparisons"] == document["comparisons"] and again["base"] == document["base"]


def test_the_served_model_is_added_to_what_was_measured(run_dir, tuned, serve, capsys):
    """The documented `eval_nim=true eval_base=false` after a full run: base stays, the manifest stays true."""
    model = BiEncoder.load(str(tuned), EncodingContract.load(tuned))

    def embed(body, _):
        encode = model.encode_queries if body["input_type"] == "query" else model.encode_passages
        vectors = encode(body["input"]).tolist()
        data = [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        return 200, {"data": data, "model": "custom"}, {}

    run(run_dir)
    asked = ("eval_nim=true", "eval_base=false", f"nim_url={serve(embed).url}", "fail_on_nim_metric_drift=true")
    failure, document, log = run(run_dir, *asked)
    assert failure is None
    assert "finetuned: reused for synthetic, people" in log and "base: reused" in log
    assert set(document) >= {"base", "finetuned", "bm25", "nim"}
    metadata = document["_metadata"]
    assert metadata["nim_model"] == "custom" and metadata["nim_diagnostics"]["embedding_dimension"] == 384
    comparison = metadata["nim_metric_comparison"]
    assert comparison["within_tolerance"] is True and comparison["model_identity_proof"] is False
    assert set(comparison["deltas"]["NDCG"]["NDCG@10"]) == {
        "checkpoint",
        "nim",
        "delta",
        "tolerance",
        "within_tolerance",
    }
    assert "✓" in capsys.readouterr().out
    assert status_of(resolved(run_dir)).state is State.DONE  # `run` measures nothing again after this


def test_a_served_model_that_drifts_fails_after_saving(run_dir, tuned, serve, capsys):
    def noise(body, number):
        data = [{"index": i, "embedding": [1.0, float(len(text) % 7)]} for i, text in enumerate(body["input"])]
        return 200, {"data": data}, {}

    url = serve(noise).url
    asked = ("eval_nim=true", "eval_base=false", "eval_bm25=false", f"nim_url={url}")
    failure, document, _ = run(run_dir, *asked)
    assert failure is None and "⚠" in capsys.readouterr().out  # informational unless asked for
    failure, document, _ = run(run_dir, *asked, "fail_on_nim_metric_drift=true")
    assert "drifts" in failure
    assert document["nim"] and document["_metadata"]["nim_metric_comparison"]["within_tolerance"] is False
    assert document["_metadata"]["measurements"]["synthetic"]["nim"]["facts"]["vector_bytes"] == 4 * 2


def test_a_reranker_behind_the_embedding_model_is_one_more_system(run_dir, tuned, tiny_reranker, capsys):
    _, document, _ = run(run_dir, f"reranker_model={tiny_reranker}", "top_k=4", "k_values=[1, 3]", "eval_bm25=false")
    assert set(document["test_sets"]["people"]) == {"base", "finetuned", "reranked"}  # no BM25, so nothing to fuse
    candidates = document["_metadata"]["candidates"]["synthetic"]
    assert (candidates["system"], candidates["top_k"]) == ("finetuned", 4)
    pairs = {(item["a"], item["b"]) for item in document["comparisons"]}
    assert pairs == {("base", "finetuned"), ("finetuned", "reranked")}
    _, document, _ = run(run_dir, "k_values=[1, 3]", "eval_bm25=false")
    assert set(document["test_sets"]["people"]) == {"base", "finetuned"}


def test_a_reranker_behind_the_hybrid_ranking(run_dir, tuned, tiny_reranker, capsys):
    asked = (f"reranker_model={tiny_reranker}", "top_k=4", "k_values=[1, 3]", "eval_base=false", "candidates=hybrid")
    _, document, _ = run(run_dir, *asked)
    candidates = document["_metadata"]["candidates"]["synthetic"]
    assert (candidates["system"], candidates["top_k"]) == ("hybrid", 4)
    assert {("finetuned", "hybrid"), ("hybrid", "reranked")} <= {(x["a"], x["b"]) for x in document["comparisons"]}
    assert (run_dir / "stage3_eval" / "people" / "hybrid_candidates.jsonl").is_file()
    assert "from hybrid on people" in capsys.readouterr().out


def test_vectors_of_an_earlier_run_are_used_again(run_dir, tuned):
    run(run_dir, "eval_base=false")
    _, document, log = run(run_dir, "eval_base=false", "k_values=[1, 3]")  # other metrics: everything is measured anew
    assert "6 of 6 passage vectors are there already" in log
    assert document["_metadata"]["measurements"]["people"]["finetuned"]["facts"]["texts"] == 6


def test_a_service_that_fails_half_way_costs_only_its_own_numbers(run_dir, tuned, serve, capsys):
    def refuse(body, number):
        return 400, {"error": "no"}, {}

    asked = ("eval_nim=true", "eval_bm25=false", f"nim_url={serve(refuse).url}", "fail_on_nim_metric_drift=true")
    failure, document, _ = run(run_dir, *asked)
    assert failure.startswith("the served model could not be measured: ") and "400" in failure
    assert "nim" not in document and document["_metadata"]["nim_diagnostics"]["error"] == failure
    assert {(item["a"], item["b"]) for item in document["comparisons"]} == {("base", "finetuned")}
    assert "tuned is not clearly different from base on people" in capsys.readouterr().out


def test_a_service_that_fails_alone_is_an_error(run_dir, serve):
    url = serve(lambda body, number: (400, {}, {})).url
    with pytest.raises(PipelineError, match="the served model could not be measured"):
        run(run_dir, "eval_nim=true", "eval_base=false", "eval_bm25=false", "eval_finetuned=false", f"nim_url={url}")


def test_a_missing_tuned_model_is_skipped_or_an_error(run_dir, capsys):
    _, document, log = run(run_dir, "eval_base=false")
    assert "finetuned" not in document and "does not exist and is skipped" in log
    with pytest.raises(PipelineError, match="nothing else is measured"):
        run(run_dir, "eval_base=false", "eval_bm25=false")


def test_the_tuned_model_keeps_its_own_contract(run_dir, tuned):
    with pytest.raises(PipelineError, match=r"max_length=64 on the command line contradicts 256"):
        run(run_dir, "max_length=64", "eval_base=false", "eval_bm25=false")
    with pytest.raises(PipelineError, match=r"query_prefix='q: ' on the command line contradicts ''"):
        run(run_dir, "query_prefix=q: ", "eval_base=false", "eval_bm25=false")


def test_an_unreachable_service_stops_before_any_work(run_dir, tuned):
    with pytest.raises(PipelineError) as caught:
        run(run_dir, "eval_nim=true", "nim_url=http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in caught.value.message
    assert re.search(r"pipeline embed deploy -c demo run_dir=\S+ detach=true", caught.value.fix)
    assert not (run_dir / "stage3_eval" / FILE_NAME).exists()


def test_a_model_that_got_worse_is_called_worse(run_dir, tiny, capsys):
    """Weights turned to noise, on a test set that is large enough to tell."""
    import torch

    from pipeline.records.beir import TestSet, write_beir

    queries = {f"{key}-{i}": text for key, text in tiny.queries.items() for i in range(10)}
    qrels = {query: tiny.qrels[query.split("-")[0]] for query in queries}
    write_beir(run_dir / "stage1_data_prep" / "eval_beir", TestSet("synthetic", tiny.corpus, queries, qrels))
    contract = EncodingContract(base_model=MODEL, query_max_length=256, passage_max_length=256)
    noise = BiEncoder.load(MODEL, contract)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in noise.model.parameters():
            weights.normal_(0, 0.05)
    noise.model.save_pretrained(run_dir / TUNED)
    noise.tokenizer.save_pretrained(run_dir / TUNED)
    contract.save(run_dir / TUNED)

    failure, document, _ = run(run_dir, "question_sets={}", "k_values=[1, 3]", "fail_on_regression=true")
    assert failure.startswith("the tuned model is worse than the base: NDCG@3 on synthetic")
    assert "tuned is worse than base on synthetic" in capsys.readouterr().out
    assert document["finetuned"]["NDCG"]["NDCG@3"] < document["base"]["NDCG"]["NDCG@3"]


def test_a_gate_that_compared_nothing_does_not_hold(run_dir, tuned):
    failure, document, _ = run(run_dir, "question_sets={}", "fail_on_regression=true", "eval_base=false")
    assert "not compared with the base" in failure
    assert "finetuned" in document  # saved all the same
    with pytest.raises(PipelineError, match="fail_on_regression is about"):
        run(run_dir, "fail_on_regression=true", f"finetuned_model_path={run_dir}/nowhere")

"""The whole stage for the reranking family, with the real embedded model as first stage and tiny rerankers."""

from __future__ import annotations

import json
import shutil

import pytest
from pipeline_eval.main import main

from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, write_beir
from pipeline.records.results import FILE_NAME
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.run.files import read_jsonl
from pipeline.run.freshness import State, status_of
from pipeline.run.stage import execute

MINILM = "embedded:all-MiniLM-L6-v2"
TUNED = "stage2_finetune/checkpoints/LATEST/model/consolidated"
TOP_K = 3


@pytest.fixture
def tuned(run_dir, tiny_reranker):
    return shutil.copytree(tiny_reranker, run_dir / TUNED)


@pytest.fixture
def overrides(run_dir, tiny_model):
    return [
        f"run_dir={run_dir}",
        f"eval_data_path={run_dir}/stage1_data_prep/eval_beir",
        f"base_model={tiny_model}",
        f"retrieval_model={MINILM}",
        "base_retrieval_model=null",
        "question_sets={}",
        "max_length=32",
        f"top_k={TOP_K}",
        "k_values=[1, 3]",
        "bootstrap_samples=200",
        "precision=fp32",
        "device=cpu",
    ]


@pytest.fixture
def run(run_dir, overrides):
    """Run the stage; returns the failure of a gate, the results and the log."""

    def start(*more):
        failure = execute(resolve("rerank", "eval", "demo", [*overrides, *more]), main)
        folder = run_dir / "stage3_eval"
        return failure, json.loads((folder / FILE_NAME).read_text()), (folder / "logs" / "latest.log").read_text()

    return start


def tops(run_dir, system):
    rows = read_jsonl(run_dir / "stage3_eval" / "synthetic" / f"{system}.jsonl")
    return {row["query_id"]: dict(row["top"]) for _, row in rows}


def test_the_stack_in_one_table(run, run_dir, tiny, tuned, tiny_model, capsys):
    before = shutil.copytree(tiny_model, run_dir / "before")
    EncodingContract(query_max_length=64, passage_max_length=64).save(before)
    failure, document, _ = run(f"base_retrieval_model={before}")
    shown = capsys.readouterr().out
    assert failure is None
    systems = ["bm25", "base_retriever", "retriever", "base", "finetuned", "hybrid"]
    measured = document["_metadata"]["measurements"]["synthetic"]
    assert list(measured) == systems and set(systems) <= set(document)
    assert measured["base"]["facts"]["note"] == "untrained head" and measured["finetuned"]["facts"]["note"] is None
    assert "untrained head" in shown and "ms/query" in shown
    assert {(item["a"], item["b"]) for item in document["comparisons"]} == {
        ("retriever", "base"),
        ("retriever", "finetuned"),
        ("base", "finetuned"),
        ("base_retriever", "retriever"),
        ("base_retriever", "finetuned"),
        ("bm25", "finetuned"),
        ("retriever", "hybrid"),
        ("hybrid", "finetuned"),
    }
    assert all(measured[system]["facts"]["ms_per_query"] is not None for system in ("retriever", "finetuned"))
    assert measured["finetuned"]["facts"]["texts"] == TOP_K * len(tiny.queries)
    assert measured["finetuned"]["facts"]["cut"] > 0  # 32 tokens are less than question and passage have
    assert "tuned reranker read" in shown

    ceiling = document["_metadata"]["candidates"]["synthetic"]
    assert ceiling == {"system": "retriever", "top_k": TOP_K, "recall": document["retriever"]["Recall"]["Recall@3"]}
    assert "no reranker can find more" in shown

    first, base, best = (tops(run_dir, system) for system in ("retriever", "base", "finetuned"))
    model = CrossEncoder.load(str(tuned), EncodingContract.load(tuned))
    for query, text in tiny.queries.items():
        candidates = list(first[query])[:TOP_K]
        assert set(base[query]) == set(best[query]) == set(candidates)
        logits = model.score([text] * TOP_K, [tiny.corpus[key].text for key in candidates])
        assert best[query] == pytest.approx(dict(zip(candidates, logits.tolist(), strict=True)), abs=1e-5)
        assert list(best[query].values()) == sorted(best[query].values(), reverse=True)

    _, again, log = run(f"base_retrieval_model={before}")
    for system in systems:
        assert f"{system}: reused for synthetic" in log
    assert again["comparisons"] == document["comparisons"]


def test_a_first_stage_that_is_not_trained_yet_is_replaced_by_the_model_before(overrides, run_dir, tuned):
    missing = run_dir / "embed" / "consolidated"
    yaml = run_dir / "mine.yaml"
    yaml.write_text(f"extends: demo\nretrieval_model: {missing}\n")
    overrides = [item for item in overrides if not item.startswith(("retrieval_model=", "base_retrieval_model="))]
    overrides += [f"base_retrieval_model={MINILM}", "eval_bm25=false"]
    execute(resolve("rerank", "eval", str(yaml), overrides), main)
    log = (run_dir / "stage3_eval" / "logs" / "latest.log").read_text()
    document = json.loads((run_dir / "stage3_eval" / FILE_NAME).read_text())
    assert "does not exist" in log and "stands in" in log
    assert "base_retriever" not in document and {"retriever", "base", "finetuned"} <= set(document)
    assert document["_metadata"]["retrieval_model"] == MINILM
    with pytest.raises(PipelineError, match=r"retrieval_model: .* does not exist"):
        execute(resolve("rerank", "eval", "demo", [*overrides, f"retrieval_model={missing}"]), main)


def test_other_candidates_make_rerankers_new_and_leave_the_first_stage(run, tuned):
    run("eval_bm25=false")
    _, document, log = run("eval_bm25=false", "top_k=4")
    assert "retriever: reused" in log
    assert "base: reused" not in log and "finetuned: reused" not in log
    assert document["_metadata"]["candidates"]["synthetic"]["top_k"] == 4


def test_rerankers_over_the_hybrid_ranking(run, run_dir, tuned, tiny_model, capsys):
    """After a run over dense candidates: rerankers are measured anew, and all that they get and are told is hybrid."""
    other = (f"retrieval_model={tiny_model}", "retrieval_max_length=64")  # an untrained one, far from BM25
    _, before, _ = run(*other)
    capsys.readouterr()
    _, document, log = run(*other, "candidates=hybrid")
    assert "hybrid: reused" in log and "base: reused" not in log and "finetuned: reused" not in log
    dense, first, base, best = (tops(run_dir, system) for system in ("retriever", "hybrid", "base", "finetuned"))
    for query, ranking in first.items():
        assert set(base[query]) == set(best[query]) == set(list(ranking)[:TOP_K])
    assert any(set(best[query]) != set(list(ranking)[:TOP_K]) for query, ranking in dense.items())
    assert document["_metadata"]["candidates"]["synthetic"] == {
        "system": "hybrid", "top_k": TOP_K, "recall": document["hybrid"]["Recall"]["Recall@3"],
    }  # fmt: skip
    pairs = [{(item["a"], item["b"]) for item in found["comparisons"]} for found in (before, document)]
    assert pairs[1] - pairs[0] == {("hybrid", "base")} and not pairs[0] - pairs[1]
    shown = capsys.readouterr().out
    assert "passages of hybrid hold" in shown and "synthetic: hybrid -> tuned reranker" in shown

    kept = run_dir / "stage3_eval" / "synthetic" / "hybrid_candidates.jsonl"
    lines = kept.read_text()
    kept.unlink()
    (kept.parent / "base.jsonl").unlink()
    _, again, log = run(*other, "candidates=hybrid")
    assert kept.read_text() == lines and again["base"] == document["base"]
    assert "finetuned: reused" in log and "base: reused" not in log


def test_the_hybrid_is_measured_before_the_rerankers_that_need_it(run, tuned):
    _, document, _ = run("candidates=hybrid", "top_k=200")
    measured = document["_metadata"]["measurements"]["synthetic"]
    assert list(measured) == ["bm25", "retriever", "hybrid", "base", "finetuned"]
    assert measured["finetuned"]["facts"]["ms_per_query"] >= measured["hybrid"]["facts"]["ms_per_query"] > 0


def test_a_run_without_the_base_keeps_its_numbers_while_they_hold(run, tuned):
    _, document, _ = run("eval_bm25=false")
    _, later, log = run("eval_bm25=false", "eval_base=false")
    assert later["base"] == document["base"] and "base: reused" in log
    _, later, _ = run("eval_bm25=false", "eval_base=false", "query_prefix=", "top_k=5")
    assert "base" not in later and "finetuned" in later


def test_the_served_reranker_gets_the_same_candidates(run, run_dir, tuned, tiny, serve, capsys):
    """The documented `eval_nim=true eval_base=false` after a full run."""
    model = CrossEncoder.load(str(tuned), EncodingContract.load(tuned))

    def rank(body, _):
        texts = [item["text"] for item in body["passages"]]
        logits = model.score([body["query"]["text"]] * len(texts), texts)
        order = sorted(range(len(texts)), key=lambda index: -logits[index])
        return 200, {"rankings": [{"index": index, "logit": float(logits[index])} for index in order]}, {}

    _, document, _ = run()
    service = serve(rank)
    failure, later, log = run(
        "eval_nim=true", "eval_base=false", "fail_on_nim_metric_drift=true", f"nim_url={service.url}"
    )
    assert failure is None and later["base"] == document["base"]
    assert later["nim"] == later["finetuned"] and "finetuned: reused" in log
    assert sum(len(body["passages"]) for body in service.requests) == TOP_K * len(tiny.queries)
    assert "ok" in capsys.readouterr().out.split("served model")[1]


def test_lost_candidates_are_searched_again(run, run_dir, tuned, overrides):
    _, document, _ = run("eval_bm25=false")
    folder = run_dir / "stage3_eval" / "synthetic"
    (folder / "retriever_candidates.jsonl").unlink()
    (folder / "base.jsonl").unlink()
    _, again, log = run("eval_bm25=false")
    assert "retriever: reused" in log and "passage vectors are there already" in log
    assert again["base"] == document["base"] and (folder / "retriever_candidates.jsonl").is_file()
    assert status_of(resolve("rerank", "eval", "demo", [*overrides, "eval_bm25=false"])).state is State.DONE


def test_a_reranker_that_spoils_the_first_stage_fails_the_gate(run, run_dir, tiny, tuned, capsys):
    """Also on a guard set, which is named as one."""
    queries = {f"{key}-{i}": text for key, text in tiny.queries.items() for i in range(10)}
    qrels = {query: tiny.qrels[query.split("-")[0]] for query in queries}
    many = TestSet("many", tiny.corpus, queries, qrels)
    write_beir(run_dir / "stage1_data_prep" / "eval_beir", many)
    write_beir(run_dir / "guard", many)
    failure, document, _ = run(f"guard_sets={{kept: {run_dir}/guard}}", "fail_on_regression=true", "eval_base=false")
    assert "worse than the first stage alone: NDCG@3 on synthetic (main test set" in failure
    assert "NDCG@3 on kept (guard set" in failure
    assert document["test_sets"]["kept"]["finetuned"] == document["finetuned"]
    assert document["_metadata"]["test_sets"]["kept"]["kind"] == "guard set"
    assert "tuned reranker is worse than retriever on kept" in capsys.readouterr().out


def test_the_pooling_is_the_base_rerankers_and_not_the_first_stages(run):
    _, mean, _ = run("eval_bm25=false", "eval_finetuned=false")
    _, first, log = run("eval_bm25=false", "eval_finetuned=false", "pooling=cls")
    assert "retriever: reused" in log and "base: reused" not in log
    contracts = [item["_metadata"]["measurements"]["synthetic"]["base"]["contract"] for item in (mean, first)]
    assert contracts[0] != contracts[1]


def test_contradictions_and_models_of_the_other_family_are_errors(run, run_dir, tuned, tiny_reranker):
    with pytest.raises(PipelineError, match="max_length=64 on the command line contradicts 32"):
        run("max_length=64", "eval_base=false")
    with pytest.raises(PipelineError, match="query_prefix='q: ' on the command line contradicts ''"):
        run("query_prefix=q: ")
    with pytest.raises(PipelineError, match="retrieval_max_length=64 on the command line contradicts 256"):
        run("retrieval_max_length=64")
    with pytest.raises(PipelineError, match=r"retriever: .* is a reranker"):
        run(f"retrieval_model={tiny_reranker}")
    EncodingContract().save(tuned)
    with pytest.raises(PipelineError, match="was made as a model of the family embed"):
        run()

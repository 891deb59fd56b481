"""Rankings made out of rankings: fused, and put in a new order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pipeline_eval.bm25 import Bm25System
from pipeline_eval.fusion import HybridSystem, reciprocal_rank_fusion
from pipeline_eval.identity import Identity
from pipeline_eval.loaded import Compute, count_too_long
from pipeline_eval.metrics import in_returned_order, score_queries
from pipeline_eval.rankings import Rankings
from pipeline_eval.rerank import RerankSystem, reordered
from transformers import AutoTokenizer

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract
from pipeline.retrieval.transformer import LoadOptions

PAIR = EncodingContract("rerank")


@pytest.fixture
def first_stage(tiny):
    """Every passage, in another order for each question."""
    ids = list(tiny.corpus)
    return {
        query: {ids[(number + place) % 6]: 1.0 - place / 10 for place in range(6)}
        for number, query in enumerate(tiny.queries)
    }


def test_fusion_adds_reciprocal_ranks():
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["c", "a", "d"]])
    assert list(fused) == ["a", "c", "b", "d"]
    assert fused == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62, "d": 1 / 63})


def test_equal_sums_keep_the_order_of_the_first_ranking():
    assert list(reciprocal_rank_fusion([["b", "a"], ["a", "b"]])) == ["b", "a"]


def test_the_hybrid_reads_each_ranking_to_its_depth_and_bears_one_that_found_nothing(tiny, first_stage):
    system = HybridSystem(("dense", "bm25"), Identity("x", "x"), depth=2)
    with system.start() as ranker:
        run = ranker.rank(tiny, [first_stage, {"q1": {"d_5": 3.0}}])
    assert set(run) == set(tiny.queries)
    assert list(run["q1"]) == ["d_0", "d_5", "d_1"]  # 1/61 each, and the dense ranking decides
    assert list(run["q2"]) == list(first_stage["q2"])[:2]


def test_only_the_candidates_are_put_in_order_and_ties_keep_the_first_stages_order(tiny, first_stage):
    seen = []

    def score(queries, passages):
        seen.extend(zip(queries, passages, strict=True))
        return np.array([float("seal" in text) for text in passages], np.float32)

    run = reordered(tiny, first_stage, 3, score, PAIR, chunk=4)
    assert len(seen) == 18 and seen[0] == (tiny.queries["q1"], tiny.corpus["d_0"].text)
    assert list(run["q1"]) == ["d_0", "d_1", "d_2"]
    assert list(run["q5"]) == ["d_0", "d_4", "d_5"]  # the first stage had 4, 5, 0
    assert run["q5"] == {"d_0": 1.0, "d_4": 0.0, "d_5": 0.0}


def test_the_chunk_changes_nothing(tiny, first_stage):
    def score(queries, passages):
        return np.array([len(query) * 7 % 5 + len(text) % 3 for query, text in zip(queries, passages, strict=True)])

    whole = reordered(tiny, first_stage, 5, score, PAIR, chunk=1000)
    assert [list(item) for item in whole.values()] == [
        list(item) for item in reordered(tiny, first_stage, 5, score, PAIR, chunk=7).values()
    ]


def test_no_order_finds_more_than_the_candidates_hold(tiny, first_stage):
    right = {text: next(iter(tiny.qrels[query])) for query, text in tiny.queries.items()}
    ids = {item.text: key for key, item in tiny.corpus.items()}

    def oracle(queries, passages):
        return np.array([float(ids[text] == right[query]) for query, text in zip(queries, passages, strict=True)])

    shifted = {query: {"d_9": 2.0} | dict(list(first_stage[query].items())[1:]) for query in ("q1", "q2")}
    candidates = in_returned_order(first_stage | {query: dict(list(run.items())[1:]) for query, run in shifted.items()})
    run = reordered(tiny, candidates, 3, oracle, PAIR, chunk=100)
    recall = [score_queries(tiny.qrels, item, [1, 3]) for item in (candidates, run)]
    ceiling = sum(item["Recall@3"] for item in recall[0].values()) / 6
    assert ceiling == pytest.approx(4 / 6)
    assert sum(item["Recall@1"] for item in recall[1].values()) / 6 == pytest.approx(ceiling)


def test_bf16_scores_are_near_fp32_ones(tiny, first_stage, tiny_reranker, tmp_path):
    contract = EncodingContract.load(tiny_reranker)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        compute = Compute(torch.device("cpu"), dtype, 2048, 5, tmp_path)
        first = Identity("first", "x")
        system = RerankSystem(
            "base", str(tiny_reranker), "weights", contract, LoadOptions(), compute, "dense", first, top_k=4
        )
        with system.start() as ranker:
            found.append(ranker.rank(tiny, [first_stage]))
        assert (ranker.facts.texts, ranker.facts.note) == (24, None) and ranker.facts.size_mb > 0
    exact, rough = found
    for query in tiny.queries:
        assert rough[query] == pytest.approx(exact[query], abs=0.02)
        assert rough[query] != exact[query]


def test_kept_rankings_come_back_only_for_the_same_system_and_depth(tmp_path, first_stage):
    rankings = Rankings(tmp_path)
    assert rankings.find("synthetic", "retriever", "one", 3) is None
    rankings.keep("synthetic", "retriever", "one", 6, first_stage)
    found = rankings.find("synthetic", "retriever", "one", 6)
    assert found == first_stage and list(found["q3"]) == list(first_stage["q3"])
    assert rankings.find("synthetic", "retriever", "other", 3) is None
    assert rankings.find("synthetic", "retriever", "one", 7) is None


def test_other_candidates_make_another_measurement():
    reranker = Identity("r", "weights", "contract", "float32", "top 30 of a")
    for other in ("top 20 of a", "top 30 of b", None):
        assert replace(reranker, candidates=other).fingerprint("set", [1]) != reranker.fingerprint("set", [1])
    assert replace(reranker, model="elsewhere").digest() == reranker.digest()


def test_texts_beyond_the_length_are_counted_exactly():
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("embedded:all-MiniLM-L6-v2"))
    texts = ["seal " * count for count in (1, 6, 7, 40)] + ["s" * 8]  # [CLS] and [SEP] come on top
    found = count_too_long(tokenizer, lambda numbers: [texts[number].strip() for number in numbers], len(texts), 8)
    assert found == 2


def test_bm25_order_at_ties_is_the_one_that_counts(tiny):
    """Two passages with one score: the system's first one is the first one for the metrics too."""
    twins = {key: replace(tiny.corpus["d_0"], id=key) for key in ("d_0", "d_1")}
    with Bm25System().open(twins) as index:
        run = index.search({"q1": "pump seal"}, 10)
    assert list(run["q1"]) == ["d_0", "d_1"] and len(set(run["q1"].values())) == 1
    scores = score_queries({"q1": {"d_0": 1}}, in_returned_order(run), [1])
    assert scores["q1"]["Recall@1"] == 1

"""Rerankers: heads old and new, scores of pairs."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.transformer import LoadOptions

CONTRACT = EncodingContract("rerank", rerank_max_length=40)
QUERIES = ["why does the pump stop", "lamp", "lamp", "q " * 60]
PASSAGES = ["the valve sticks", "it flickers " * 30, "", "p"]


@pytest.mark.parametrize("pooling", ["avg", "weighted_avg", "cls", "last"])
@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "llama"])
def test_scores_do_not_depend_on_order_batches_or_padding(kind, pooling, tiny_model):
    model = CrossEncoder.load(str(tiny_model(kind)), CONTRACT.with_(pooling=pooling))
    scores = model.score(QUERIES, PASSAGES)
    assert scores.shape == (4,) and scores.dtype == np.float32 and len(set(scores.tolist())) == 4
    seen: list[int] = []
    np.testing.assert_allclose(model.score(QUERIES[::-1], PASSAGES[::-1], batch_tokens=1, on_batch=seen.append)[::-1],
                               scores, atol=1e-6)  # fmt: skip
    assert seen == [1] * 4
    ids, starts = model.tokenize(QUERIES, PASSAGES)
    wide = model.collate(ids, starts, pad_to_multiple_of=64)
    assert wide[0].shape == (4, 64)
    with torch.no_grad():
        np.testing.assert_allclose(model(*wide).numpy(), scores, atol=1e-6)


def test_a_new_head_is_announced_and_follows_the_seed(tiny_model, caplog):
    first = CrossEncoder.load(str(tiny_model("bert")), CONTRACT, seed=1)
    assert "a new one is drawn at random (seed 1)" in caplog.text
    assert first.head.weight.dtype == torch.float32 and first.head.weight.shape == (1, 16)
    again, other = (CrossEncoder.load(str(tiny_model("bert")), CONTRACT, seed=seed) for seed in (1, 2))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_a_ready_reranker_keeps_its_own_head(tiny_model, caplog):
    caplog.set_level(logging.INFO, "pipeline")
    folder = tiny_model("bert", AutoModelForSequenceClassification, num_labels=1)
    model = CrossEncoder.load(str(folder), CONTRACT)
    assert model.head is None and "its own head and pooling are kept" in caplog.text
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = AutoTokenizer.from_pretrained(folder)(
        QUERIES[:3], PASSAGES[:3], truncation="only_second", max_length=40, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = plain(**batch).logits[:, 0].numpy()
    np.testing.assert_allclose(model.score(QUERIES[:3], PASSAGES[:3]), expected, atol=1e-6)


def test_a_classifier_of_several_labels_is_refused(tiny_model):
    folder = tiny_model("bert", AutoModelForSequenceClassification, num_labels=3)
    with pytest.raises(PipelineError, match="has 3 labels"):
        CrossEncoder.load(str(folder), CONTRACT)


def test_token_types_tell_the_passage_from_the_query_where_the_model_reads_them(tiny_model):
    model = CrossEncoder.load(str(tiny_model("bert")), CONTRACT)
    _, mask, types = model.collate(*model.tokenize(["a b", "a"], ["c", "c d e f"]))
    assert types.tolist() == [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1]]
    assert mask.tolist()[0] == [1] * 6 + [0] * 2
    template = CrossEncoder(
        model.body, model.head, model.tokenizer, CONTRACT.with_(prompt_template="{query} {passage}")
    )
    assert not template.collate(*template.tokenize(["a"], ["b"]))[2].any()
    without = CrossEncoder.load(str(tiny_model("modernbert")), CONTRACT)
    assert without.collate(*without.tokenize(["a"], ["b"]))[2] is None


def test_the_head_computes_in_fp32_beside_a_bf16_body(tiny_model):
    options = LoadOptions(attn_implementation="eager")
    model = CrossEncoder.load(str(tiny_model("bert")), CONTRACT, dtype=torch.bfloat16, options=options)
    assert model.body.dtype == torch.bfloat16 and model.head.weight.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.score(QUERIES, PASSAGES)
    assert (torch.tensor(scores).bfloat16().float() != torch.tensor(scores)).any()
    exact = CrossEncoder.load(str(tiny_model("bert")), CONTRACT).score(QUERIES, PASSAGES)
    np.testing.assert_allclose(scores, exact, atol=0.1)

"""The export of a cross-encoder, from checkpoint to published folder."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from pipeline_export import engine, forms
from pipeline_export.graph import write_graph

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.onnx_encoder import OnnxEncoder
from pipeline.retrieval.onnx_scorer import OnnxScorer
from pipeline.retrieval.onnx_session import TextTooLong
from pipeline.run.snapshot import sha256_of

TEMPLATE = "question:{query} \n \n passage:{passage}"
TRICKY = [
    ("why does it beep?", "Alarm E-104: the sieve column is blocked."),
    ("", "no query"),
    ("no passage", ""),
    ("a {passage} in [SEP] braces", "{query} \n\t and [CLS] 水温 – Zwölf Ölfässer 🌊\x00"),
    ("long passage", "The winch is greased every 500 hours. " * 30),
    ("how often is it greased " * 30, "every 500 hours"),
]


@pytest.fixture
def exported(export):
    """Export a reranker; returns (torch's model, the export, folder of the stage)."""

    def run(model_dir, *overrides):
        failure, folder = export(model_dir, *overrides, family="rerank")
        assert failure is None
        model = CrossEncoder.load(str(model_dir), EncodingContract.load(model_dir))
        return model, OnnxScorer.load(folder / "onnx", threads=1), folder

    return run


@pytest.mark.parametrize(
    ("kind", "template", "ready"),
    [("bert", None, False), ("bert", TEMPLATE, False), ("bert", None, True), ("llama", TEMPLATE, False),
     ("llama", None, True)],
)  # fmt: skip
def test_the_export_gives_torchs_tokens_and_logits(make_reranker, exported, kind, template, ready):
    model, scorer, folder = exported(make_reranker(kind, template, ready))
    queries, passages = zip(*TRICKY, strict=True)
    ids, starts = model.tokenize(queries, passages)
    tokens = scorer.tokenize(TRICKY)
    assert tokens == ids and [item.second for item in tokens] == starts
    expected = model.score(queries, passages, batch_tokens=1)
    spread = expected.std()
    for batch_tokens in (1, 2048):
        scores = scorer.score(TRICKY, batch_tokens)
        assert scores.dtype == np.float32 and np.abs(scores - expected).max() < 1e-4 * spread
    assert np.abs(scorer.forward(tokens) - expected).max() < 1e-4 * spread
    names = [port["name"] for port in json.loads((folder / "onnx" / "metadata.json").read_text())["inputs"]]
    assert names == ["input_ids", "attention_mask", *(["token_type_ids"] if kind == "bert" else [])]


def test_token_types_reach_the_graph(make_reranker, exported):
    _, scorer, _ = exported(make_reranker())
    tokens = scorer.tokenize(TRICKY[:1])
    one_segment = [list(item) for item in tokens]
    assert abs(scorer.forward(tokens) - scorer.forward(one_segment))[0] > 1e-3


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_what_is_cut_is_the_passage_at_the_end_that_was_named(make_reranker, exported, template):
    _, scorer, _ = exported(make_reranker(template=template))
    numbers = " ".join(map(str, range(100, 300)))
    ends, starts = (scorer.tokenize([("pump", numbers)], truncate)[0] for truncate in ("END", "START"))
    assert len(ends) == len(starts) == 64
    words = {word: scorer.tokenize([(word, "")], "NONE")[0] for word in ("100", "299", "pump")}
    own = {word: set(ids) - set(words["pump"]) for word, ids in words.items() if word != "pump"}
    assert own["100"] <= set(ends) and not own["299"] & set(ends)
    assert own["299"] <= set(starts) and not own["100"] & set(starts)
    pump = set(words["pump"]) - set(words["100"])
    assert pump <= set(starts) and pump <= set(ends)
    with pytest.raises(TextTooLong, match="text 1 has 2"):
        scorer.tokenize([("short", "one"), ("pump", numbers)], "NONE")
    assert scorer.tokenize([("short", "one")], "NONE") == scorer.tokenize([("short", "one")], "START")


def test_what_lies_beside_the_graph(make_reranker, exported):
    _, _, folder = exported(make_reranker(template=TEMPLATE))
    metadata = json.loads((folder / "onnx" / "metadata.json").read_text())
    assert metadata["outputs"] == [{"name": "logits", "type": "float32", "shape": ["batch", 1]}]
    told = metadata["encoding"]
    assert (told["prompt_template"], told["rerank_max_length"], told["padding_side"]) == (TEMPLATE, 64, "right")
    assert EncodingContract.load(folder / "onnx").prompt_template == TEMPLATE
    parity = json.loads((folder / "exports.json").read_text())["exports"]["onnx"]["parity"]
    assert parity["passed"] and parity["logit_diff"] < 1e-4 and parity["order_agreement"] == 1
    report = json.loads((folder / "parity_report.json").read_text())
    assert report["texts"]["pairs"] == parity["pairs"] == 16
    assert report["results"][0]["longest"] == 64
    assert [item["batch_size"] for item in report["results"][0]["batches"]] == [1, 7, 32]


def test_a_half_size_model_lies_beside_it(make_reranker, exported):
    model, _, folder = exported(make_reranker(), "export_dtype=fp16")
    half = OnnxScorer.load(folder / "onnx_fp16")
    expected = model.score(*zip(*TRICKY, strict=True))
    difference = np.abs(half.score(TRICKY) - expected).max() / expected.std()
    assert 1e-6 < difference < 0.02
    listing = json.loads((folder / "exports.json").read_text())
    assert listing["default"] == "onnx" and listing["exports"]["onnx_fp16"]["parity"]["passed"]


def test_an_export_that_differs_is_not_published_and_the_older_one_stays(make_reranker, export, monkeypatch):
    model_dir = make_reranker()
    _, folder = export(model_dir, family="rerank")
    before = {path.name: sha256_of(path) for path in (folder / "onnx").iterdir()}

    def broken(traced, target, opset):
        with torch.no_grad():
            traced.network.model.head.weight[0, :4] *= 1.5
        return write_graph(traced, target, opset)

    monkeypatch.setattr(forms, "write_graph", broken)
    with pytest.raises(PipelineError, match=r"does not give torch's logits.*parity_max_logit_diff") as caught:
        export(model_dir, family="rerank")
    assert "the fp32 ONNX model was not published" in caught.value.fix
    assert {path.name: sha256_of(path) for path in (folder / "onnx").iterdir()} == before
    assert json.loads((folder / "parity_report.json").read_text())["results"][0]["passed"] is False


def test_the_models_own_template_comes_before_the_yaml_and_is_not_overruled(make_reranker, exported, export):
    model_dir = make_reranker(template=None)
    _, scorer, _ = exported(model_dir)
    assert scorer.contract.prompt_template is None
    with pytest.raises(PipelineError, match=r"prompt_template=.*contradicts None"):
        export(model_dir, f"prompt_template={TEMPLATE}", family="rerank")


def test_each_family_refuses_the_others_models(make_tiny, make_reranker, export):
    with pytest.raises(PipelineError, match="is a model for embed") as caught:
        export(make_tiny(), family="rerank")
    assert "pipeline embed export" in caught.value.fix
    _, folder = export(make_reranker(), family="rerank")
    with pytest.raises(PipelineError, match="holds a model for rerank, not for embed"):
        OnnxEncoder.load(folder / "onnx")


def test_a_reranker_alone_can_be_exported(make_reranker, export, monkeypatch):
    monkeypatch.setattr(forms, "write_graph", partial(write_graph, external_above=1000))
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    failure, folder = export(make_reranker(), "parity_data_path=null", "export_to_trt=true", family="rerank")
    assert "export_to_trt=false" in failure and (folder / "onnx" / "model.onnx.data").is_file()
    report = json.loads((folder / "parity_report.json").read_text())
    assert report["texts"] == {"from": "built-in", "queries": 5, "pairs": 16}

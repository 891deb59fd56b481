"""8-bit forms: what is rounded, on which texts the ranges are measured, and what happens when one does not hold."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from pipeline_export.quantise import RECIPES, linear_layers, quantise, scale_of, smoothing_factors

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.passages import Passage, write_corpus
from pipeline.records.training import TrainingFile, TrainingRow
from pipeline.retrieval.onnx_encoder import OnnxEncoder
from pipeline.retrieval.onnx_scorer import OnnxScorer

QUANT = [("int8_sq", "int8"), ("fp8", "fp8")]
RNG = np.random.default_rng(3)
INPUT = RNG.normal(size=(2, 5, 16)).astype(np.float32) * np.linspace(0.1, 20, 16, dtype=np.float32)
WEIGHTS = [RNG.normal(size=(16, 8)).astype(np.float32) for _ in range(2)]


def two_products() -> onnx.ModelProto:
    """x [batch, sequence, 16] times two matrices: one activation that two products read."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "s", width])
             for name, width in (("x", 16), ("a", 8), ("b", 8))]  # fmt: skip
    nodes = [helper.make_node("MatMul", ["x", f"w{name}"], [name]) for name in "ab"]
    weights = [numpy_helper.from_array(value, f"w{name}") for name, value in zip("ab", WEIGHTS, strict=True)]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])


@pytest.mark.parametrize("name", RECIPES)
def test_both_products_share_one_rounded_activation_and_stay_close(name):
    model = two_products()
    largest = {"x": np.abs(INPUT).max(axis=(0, 1))}
    assert quantise(model, largest, RECIPES[name]) == 2
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 1
    onnx.checker.check_model(model, full_check=True)
    types = {item.data_type for item in model.graph.initializer if len(item.dims) == 2}
    assert types == {TensorProto.INT8 if name == "int8_sq" else TensorProto.FLOAT8E4M3FN}
    found = ReferenceEvaluator(model).run(None, {"x": INPUT})
    for output, matrix in zip(found, WEIGHTS, strict=True):
        expected = INPUT @ matrix
        error = np.abs(output - expected).max() / expected.std()
        assert 1e-5 < error < 0.2


def test_smoothing_takes_the_outliers_out_of_the_activation_and_leaves_the_product_as_it_was():
    largest = np.where(np.arange(16) == 7, 500, 50).astype(np.float32)
    factors = smoothing_factors(largest, WEIGHTS, 0.8)
    assert (largest / factors).max() < 3 * (largest / factors).mean() < largest.max() / 20
    product = (INPUT / factors) @ (WEIGHTS[0] * factors[:, None])
    assert np.abs(product - INPUT @ WEIGHTS[0]).max() < 1e-3


def test_channels_that_are_always_zero_do_no_harm():
    zeros = np.zeros(16, dtype=np.float32)
    assert (smoothing_factors(zeros, WEIGHTS, 0.8) == 1).all()
    dead = WEIGHTS[0] * (np.arange(16) > 3)[:, None]
    assert np.isfinite(smoothing_factors(np.abs(INPUT).max(axis=(0, 1)), [dead], 0.8)).all()
    assert scale_of(0, RECIPES["fp8"]) == 1


def test_a_graph_without_linear_layers_is_refused():
    model = two_products()
    del model.graph.initializer[:]
    with pytest.raises(PipelineError, match="no product with a constant"):
        linear_layers(model.graph)


@pytest.mark.parametrize(("quant_cfg", "dtype"), QUANT)
def test_an_8_bit_encoder_lies_beside_the_fp32_one(make_tiny, export, quant_cfg, dtype):
    failure, folder = export(make_tiny(), f"quant_cfg={quant_cfg}")
    assert failure is None
    listing = json.loads((folder / "exports.json").read_text())
    assert listing["default"] == "onnx" and set(listing["exports"]) == {"onnx", f"onnx_{dtype}"}
    entry = listing["exports"][f"onnx_{dtype}"]
    assert entry["dtype"] == dtype and entry["parity"]["passed"] and entry["parity"]["cosine"] < 0.9999999
    metadata = json.loads((folder / f"onnx_{dtype}" / "metadata.json").read_text())
    assert metadata["quantisation"]["products"] == 12  # two layers of query, key, value, output and two of the MLP
    assert metadata["quantisation"]["calibration"]["seed"] == 42
    graph = onnx.load(folder / f"onnx_{dtype}" / "model.onnx").graph
    rounded = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    readers = {node.op_type for node in graph.node if rounded & set(node.input)}
    assert readers == {"MatMul"}
    exact, rough = (OnnxEncoder.load(folder / name) for name in ("onnx", f"onnx_{dtype}"))
    tokens = exact.tokenize(["the winch", "a pump that starts by itself"], "passage")
    assert rough.tokenize(["the winch", "a pump that starts by itself"], "passage") == tokens
    cosine = (exact.forward(tokens) * rough.forward(tokens)).sum(1)
    assert (cosine > 0.99).all() and (cosine < 1 - 1e-8).any()


@pytest.mark.parametrize(("quant_cfg", "dtype"), QUANT)
def test_an_8_bit_reranker_reads_token_types_too(make_reranker, export, quant_cfg, dtype):
    failure, folder = export(make_reranker(), f"quant_cfg={quant_cfg}", "quant_max_logit_diff=2", family="rerank")
    assert failure is None
    exact, rough = (OnnxScorer.load(folder / name) for name in ("onnx", f"onnx_{dtype}"))
    pairs = [("why does it beep?", "Alarm E-104"), ("how often?", "Every 500 hours."), ("x", "y")]
    assert np.abs(exact.score(pairs) - rough.score(pairs)).max() < 2 * exact.score(pairs).std()


def test_an_8_bit_model_that_does_not_hold_is_not_published_and_the_fp32_one_is(make_tiny, export):
    failure, folder = export(make_tiny(), "quant_cfg=int8_sq", "quant_min_cosine=1.0")
    assert "quant_min_cosine=1.0" in failure and "int8 ONNX model was not published" in failure
    assert (folder / "onnx" / "model.onnx").is_file() and not (folder / "onnx_int8").exists()
    assert set(json.loads((folder / "exports.json").read_text())["exports"]) == {"onnx"}
    report = json.loads((folder / "parity_report.json").read_text())
    assert [(item["dtype"], item["passed"]) for item in report["results"]] == [("fp32", True), ("int8", False)]


@pytest.fixture
def training(tmp_path):
    """Two rows over three passages, in a file as prep writes it."""
    passages = [Passage("p0", "pumps"), Passage("p1", "winches"), Passage("p2", "lamps")]
    write_corpus(tmp_path / "corpus", passages, "c")
    rows = [TrainingRow(f"q{n}", f"question {n}", "c", [f"p{n}"], ["p2"]) for n in range(2)]
    return TrainingFile(tmp_path / "corpus", rows).save(tmp_path / "train.json")


@pytest.fixture
def seen(monkeypatch):
    """What the model was calibrated on."""
    from pipeline_export import forms

    found = []
    real = forms.largest_activations
    monkeypatch.setattr(
        forms, "largest_activations", lambda graph, exported, samples, tokens: found.extend(samples)
        or real(graph, exported, samples, tokens),
    )  # fmt: skip
    return found


def test_training_questions_calibrate_under_the_models_own_prefixes(make_tiny, export, training, seen):
    _, folder = export(make_tiny(), "quant_cfg=int8_sq", f"calibration_data_path={training}")
    assert {(item.kind, item.text) for item in seen} == {
        ("query", "q: question 0"), ("query", "q: question 1"),
        ("passage", "pumps"), ("passage", "winches"), ("passage", "lamps"),
    }  # fmt: skip
    record = json.loads((folder / "onnx_int8" / "metadata.json").read_text())["quantisation"]["calibration"]
    assert record == {"from": str(training), "samples": 5, "seed": 42}


@pytest.mark.parametrize("chosen", [(), ("calibration_query=asked",)])
def test_pairs_have_their_question_or_the_calibration_query(make_reranker, export, training, seen, chosen):
    export(make_reranker(), "quant_cfg=int8_sq", f"calibration_data_path={training}", *chosen, family="rerank")
    questions = {"asked"} if chosen else {"question 0", "question 1"}
    assert {item.query for item in seen} == questions and {item.passage for item in seen} == {
        "pumps",
        "winches",
        "lamps",
    }


def test_without_training_data_passages_calibrate_but_never_a_test_question(make_reranker, export, beir, seen):
    export(make_reranker(), "quant_cfg=int8_sq", family="rerank")
    assert {item.query for item in seen} == {"what information is relevant to this query?"}
    assert len(seen) == 6 and EncodingContract("rerank").format_passage("短い文。") in {item.passage for item in seen}
    with pytest.raises(PipelineError, match="does not exist"):
        export(make_reranker(), "quant_cfg=fp8", f"calibration_data_path={beir / 'no.json'}", family="rerank")

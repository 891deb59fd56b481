"""The export stage from checkpoint to published folder."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from pipeline_export import engine, forms
from pipeline_export.families import FAMILIES
from pipeline_export.graph import write_graph
from pipeline_export.package import source_model
from tokenizers import Tokenizer

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.onnx_encoder import OnnxEncoder
from pipeline.run.snapshot import sha256_of
from pipeline.schemas.export import EmbedExportConfig

SHAPES = [(1, 1), (1, 3), (1, 256), (7, 5), (32, 64), (2, 1)]


@pytest.mark.slow
def test_the_real_model_gives_torchs_vectors_at_every_shape(minilm, export):
    failure, folder = export(minilm, "export_dtype=fp16")
    assert failure is None
    model = BiEncoder.load(str(minilm), EncodingContract.load(minilm))
    exported = OnnxEncoder.load(folder / "onnx")
    rng = np.random.default_rng(0)
    for batch, length in SHAPES:
        tokens = [list(rng.integers(1000, 20000, max(1, length - row % length))) for row in range(batch)]
        assert np.abs(exported.forward(tokens) - model.encode_tokens(tokens, batch_tokens=1)).max() < 1e-5, (
            batch,
            length,
        )
    texts = ["short", "word " * 500, "a somewhat longer passage about pumps"]
    for kind in ("query", "passage"):
        assert exported.tokenize(texts, kind) == model.tokenize(texts, kind)

    listing = json.loads((folder / "exports.json").read_text())
    assert listing["default"] == "onnx" and set(listing["exports"]) == {"onnx", "onnx_fp16"}
    assert listing["exports"]["onnx_fp16"]["bytes"] < 0.51 * listing["exports"]["onnx"]["bytes"]
    report = json.loads((folder / "parity_report.json").read_text())
    fp32, fp16 = report["results"]
    assert (
        fp32["cosine"] > 0.99999
        and fp32["longest"] == 256
        and [b["batch_size"] for b in fp32["batches"]]
        == [
            1,
            7,
            32,
        ]
    )
    assert fp16["passed"] and fp16["min_cosine"] == 0.999
    assert {"onnx/model.onnx", "onnx/tokenizer.json", "onnx/encoding_contract.json", "exports.json"} <= set(
        json.loads((folder / "manifest.json").read_text())["outputs"]
    )


@pytest.mark.parametrize(("pooling", "normalize"), [("avg", False), ("cls", True), ("last", True), ("last", False)])
def test_pooling_and_normalisation_are_inside_the_graph(make_tiny, export, pooling, normalize):
    model_dir = make_tiny(pooling=pooling, normalize=normalize)
    _, folder = export(model_dir)
    model = BiEncoder.load(str(model_dir), EncodingContract.load(model_dir))
    tokens = model.tokenize(["one", "and a much longer text than that", "x"], "passage")
    expected = model.encode_tokens(tokens, batch_tokens=1)
    vectors = OnnxEncoder.load(folder / "onnx").forward(tokens)
    assert np.abs(vectors - expected).max() < 1e-5
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.allclose(lengths, 1, atol=1e-5) == normalize


def test_what_lies_beside_the_graph(make_tiny, export):
    model_dir = make_tiny()
    _, folder = export(model_dir)
    written = folder / "onnx"
    metadata = json.loads((written / "metadata.json").read_text())
    assert [(port["name"], port["type"], port["shape"]) for port in metadata["inputs"]] == [
        ("input_ids", "int64", ["batch", "sequence"]),
        ("attention_mask", "int64", ["batch", "sequence"]),
    ]
    assert metadata["outputs"] == [{"name": "embeddings", "type": "float32", "shape": ["batch", 32]}]
    opsets = {item.domain: item.version for item in onnx.load(written / "model.onnx").opset_import}
    assert opsets[""] == metadata["opset"] == 17
    contract = EncodingContract.load(written)
    assert contract.dimension == 32 and contract.query_prefix == "q: " and contract.tokenizer_hash
    assert metadata["contract_digest"] == contract.digest()
    assert metadata["files"]["model.onnx"]["sha256"] == sha256_of(written / "model.onnx")
    weights = metadata["source"]["weights"]["model.safetensors"]
    assert weights["sha256"] == sha256_of(model_dir / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(written / "tokenizer.json"))
    assert tokenizer.truncation is None and tokenizer.padding["pad_token"] == "[PAD]"


def test_the_same_checkpoint_gives_the_same_bytes(make_tiny, export):
    model_dir = make_tiny()
    first = {path.name: sha256_of(path) for path in sorted((export(model_dir)[1] / "onnx").iterdir())}
    again = {path.name: sha256_of(path) for path in sorted((export(model_dir)[1] / "onnx").iterdir())}
    assert first == again


def test_an_export_that_differs_is_not_published_and_the_older_one_stays(make_tiny, export, monkeypatch):
    model_dir = make_tiny()
    _, folder = export(model_dir)
    listing = (folder / "exports.json").read_text()
    before = {path.name: sha256_of(path) for path in (folder / "onnx").iterdir()}

    def broken(traced, target, opset):
        with torch.no_grad():
            traced.body.embeddings.word_embeddings.weight[1000:] *= -1
        return write_graph(traced, target, opset)

    monkeypatch.setattr(forms, "write_graph", broken)
    with pytest.raises(PipelineError, match="does not give torch's vectors") as caught:
        export(model_dir)
    assert "the fp32 ONNX model was not published" in caught.value.fix
    assert {path.name: sha256_of(path) for path in (folder / "onnx").iterdir()} == before
    assert not list(folder.glob(".onnx.*")) and (folder / "exports.json").read_text() == listing
    report = json.loads((folder / "parity_report.json").read_text())
    assert report["results"][0]["passed"] is False


def test_forms_of_the_same_model_stay_listed_and_those_of_another_do_not(make_tiny, export):
    def listed(*arguments):
        _, folder = export(*arguments)
        return folder, set(json.loads((folder / "exports.json").read_text())["exports"])

    model_dir = make_tiny()
    assert listed(model_dir, "export_dtype=fp16")[1] == {"onnx", "onnx_fp16"}
    assert listed(model_dir)[1] == {"onnx", "onnx_fp16"}
    folder, names = listed(make_tiny("retrained", seed=1))
    assert names == {"onnx"} and (folder / "onnx_fp16").is_dir()
    assert "onnx_fp16 is of an earlier model" in (folder / "logs" / "latest.log").read_text()


def test_without_tensorrt_the_onnx_model_is_kept_and_the_exit_is_an_error(make_tiny, export, monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    failure, folder = export(make_tiny(), "export_to_trt=true")
    assert "export_to_trt=false" in failure and "not installed" in failure
    assert (folder / "onnx" / "model.onnx").is_file() and not (folder / "tensorrt").exists()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "onnx/model.onnx" in manifest["outputs"] and manifest["failure"] == failure


def test_a_model_without_a_contract_is_refused(make_tiny, export):
    model_dir = make_tiny()
    (model_dir / "encoding_contract.json").unlink()
    with pytest.raises(PipelineError, match=r"neither encoding_contract\.json"):
        export(model_dir)


def test_a_folder_with_other_things_is_never_replaced(make_tiny, export, tmp_path):
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter1.txt").write_text("years of work")
    with pytest.raises(PipelineError, match="is not an export"):
        export(make_tiny(), f"onnx_export_path={mine}")
    assert (mine / "chapter1.txt").read_text() == "years of work"


def test_a_checkpoints_folder_stands_for_its_model(make_tiny, tmp_path):
    inner = tmp_path / "epoch_1_step_2" / "model" / "consolidated"
    inner.parent.mkdir(parents=True)
    make_tiny().rename(inner)
    folder, contract = source_model(str(tmp_path / "epoch_1_step_2"), "embed")
    assert folder == inner and contract.query_prefix == "q: "
    with pytest.raises(PipelineError, match="is not a folder"):
        source_model("somebody/a-hub-model", "embed")


def test_a_checkpoint_alone_can_be_exported(make_tiny, export, tmp_path):
    model_dir = make_tiny()
    _, folder = export(model_dir, "parity_data_path=null")
    assert json.loads((folder / "parity_report.json").read_text())["texts"]["from"] == "built-in"
    with pytest.raises(PipelineError, match="does not exist"):
        export(model_dir, f"parity_data_path={tmp_path / 'nowhere'}")


def test_large_models_keep_their_weights_in_one_file_beside_the_graph(make_tiny, tmp_path, monkeypatch):
    model_dir, out = make_tiny(), tmp_path / "out"
    out.mkdir()
    contract = EncodingContract.load(model_dir)
    model = BiEncoder.load(str(model_dir), contract)
    monkeypatch.setattr(forms, "write_graph", partial(write_graph, external_above=1000))
    source = forms.Model(FAMILIES[EmbedExportConfig], model, model_dir, contract, [], {})
    exported = forms.write_form(source, forms.Form("fp32", out, 17), out)
    assert set(json.loads((out / "metadata.json").read_text())["files"]) == {"model.onnx", "model.onnx.data"}
    assert (out / "model.onnx").stat().st_size < 500_000 < (out / "model.onnx.data").stat().st_size
    tokens = model.tokenize(["one", "two words"], "passage")
    assert np.abs(exported.forward(tokens) - model.encode_tokens(tokens)).max() < 1e-5

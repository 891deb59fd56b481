"""The TensorRT step. Engines are really built where tensorrt_rtx is installed: it needs no GPU for that.

What needs one (loading, running, judging an engine) and full TensorRT is not tested here.
"""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
from pipeline_export import engine
from pipeline_export.engine import Shapes, build_engine, find_library

from pipeline.errors import PipelineError
from pipeline.schemas.export import EmbedExportConfig

with_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (extra tensorrt-rtx of pipeline-export)"
)
SMALL = Shapes((1, 3), (4, 16), (8, 64))
INPUTS = {"input_ids", "attention_mask"}


@pytest.fixture
def rtx(monkeypatch):
    """TensorRT-RTX alone, also on a machine that has full TensorRT."""
    monkeypatch.setattr(engine, "ENGINE_FILES", {"tensorrt_rtx": "model.engine"})
    return find_library()


def test_the_longest_sequence_is_the_models_own_unless_said():
    config = EmbedExportConfig()
    assert Shapes.of(config, 512) == Shapes((1, 3), (16, 128), (64, 512))
    assert Shapes.of(config, 64).best == (16, 64)
    assert Shapes.of(EmbedExportConfig(trt_max_seq_len=256), 512).most == (64, 256)
    with pytest.raises(PipelineError, match="trt_max_seq_len=600: the model reads 512"):
        Shapes.of(EmbedExportConfig(trt_max_seq_len=600), 512)


def test_a_library_that_is_there_but_broken_is_named(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(engine, "ENGINE_FILES", {"tensorrt": "model.plan"})
    with pytest.raises(PipelineError, match=r"tensorrt cannot be imported here: libnvinfer") as caught:
        find_library()
    assert "export_to_trt=false" in caught.value.fix


@with_rtx
@pytest.mark.parametrize(("chosen", "dtype"), [((), "fp32"), (("export_dtype=fp16",), "fp16"),
                                               (("quant_cfg=int8_sq",), "int8"),
                                               (("quant_cfg=fp8",), "fp8")])  # fmt: skip
def test_an_engine_of_each_form_is_built_and_is_not_said_to_have_run(make_tiny, export, rtx, chosen, dtype):
    failure, folder = export(make_tiny(), "export_to_trt=true", *chosen)
    assert failure is None
    blob = (folder / "tensorrt" / "model.engine").read_bytes()
    assert len(blob) > 10_000 and b"input_ids" in blob and b"embeddings" in blob
    metadata = json.loads((folder / "tensorrt" / "metadata.json").read_text())
    assert metadata["format"] == "tensorrt_rtx" and metadata["dtype"] == dtype
    assert metadata["shapes"]["max"] == [64, 64] and "not executed" in metadata["executed"]
    assert metadata["files"]["model.engine"]["size"] == len(blob)
    names = {path.name for path in (folder / "tensorrt").iterdir()}
    assert {"tokenizer.json", "encoding_contract.json"} < names and "model.onnx" not in names
    listing = json.loads((folder / "exports.json").read_text())
    assert listing["default"] == "onnx" and listing["exports"]["tensorrt"]["parity"]["passed"] is None
    assert "tensorrt/model.engine" in json.loads((folder / "manifest.json").read_text())["outputs"]


@with_rtx
def test_a_rerankers_engine_takes_token_types(make_reranker, export, rtx):
    failure, folder = export(make_reranker(), "export_to_trt=true", family="rerank")
    assert failure is None and b"token_type_ids" in (folder / "tensorrt" / "model.engine").read_bytes()


@with_rtx
def test_the_norms_of_a_half_precision_model_are_computed_in_fp32(make_tiny, export, rtx):
    _, folder = export(make_tiny(), "export_dtype=fp16")
    log = engine._logger(rtx)
    network = rtx.Builder(log).create_network(0)
    assert rtx.OnnxParser(network, log).parse_from_file(str(folder / "onnx_fp16" / "model.onnx"))
    types: dict[str, set[str]] = {}
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        types.setdefault(layer.type.name, set()).add(layer.get_output(0).dtype.name)
    assert types["NORMALIZATION"] == {"FLOAT"} and types["MATRIX_MULTIPLY"] == {"HALF"}


@pytest.fixture
def onnx_model(make_tiny, export):
    return export(make_tiny())[1] / "onnx" / "model.onnx"


@with_rtx
def test_everything_that_the_library_says_is_in_one_error(rtx, onnx_model, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    wrong = Shapes((8, 3), (4, 16), (8, 64))
    for path, inputs, shapes, told in [
        (tmp_path / "bad.onnx", INPUTS, SMALL, "MODEL_DESERIALIZE_FAILED|parse"),
        (onnx_model, {*INPUTS, "token_type_ids"}, SMALL, "network has the inputs"),
        (onnx_model, INPUTS, wrong, "MIN<=OPT<=MAX"),
    ]:
        with pytest.raises(PipelineError, match=rf"tensorrt_rtx [\d.]+ built no engine from (?s:.*)({told})") as caught:
            build_engine(rtx, path, inputs, shapes)
        assert "export_to_trt=false" in caught.value.fix


@with_rtx
def test_an_engine_that_is_not_built_fails_the_stage_after_the_onnx_model(make_tiny, export, rtx, monkeypatch):
    monkeypatch.setattr(engine.Shapes, "of", classmethod(lambda cls, config, longest: Shapes((8, 3), (4, 16), (8, 64))))
    failure, folder = export(make_tiny(), "export_to_trt=true")
    assert "built no engine" in failure and not (folder / "tensorrt").exists()
    assert set(json.loads((folder / "exports.json").read_text())["exports"]) == {"onnx"}


@with_rtx
def test_the_calls_of_a_run_on_a_gpu_exist(rtx):
    """They cannot be made here; RTX shares their names with full TensorRT."""
    for owner, names in [
        (rtx.Runtime, ["deserialize_cuda_engine"]),
        (rtx.ICudaEngine, ["create_execution_context"]),
        (rtx.IExecutionContext, ["set_input_shape", "set_tensor_address", "get_tensor_shape", "execute_async_v3"]),
    ]:
        assert [name for name in names if not hasattr(owner, name)] == []


def test_the_engine_never_replaces_the_onnx_model(make_tiny, export, tmp_path):
    with pytest.raises(PipelineError, match="is onnx_export_path"):
        export(
            make_tiny(), "export_to_trt=true", f"onnx_export_path={tmp_path / 'x'}", f"trt_model_path={tmp_path / 'x'}"
        )

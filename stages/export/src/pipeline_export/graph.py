"""Write a model as an ONNX graph with everything inside it: pooling, normalisation, head.

The TorchScript exporter is used, not the newer `dynamo=True`: it writes the documented operator set 17 (dynamo cannot
go below 18), its graph lets onnxruntime fuse bias and GELU (on two cores about 10 % more texts per second for MiniLM),
and it is ten times quicker. Both gave vectors equal to 2e-7 for BERT, Llama, Qwen3, ModernBERT, XLM-R and MPNet.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.retrieval.onnx_session import MODEL_FILE

WEIGHTS_FILE = "model.onnx.data"
LARGEST_PROTOBUF = 2**31 - 2**20
"""Bytes; a larger model keeps its weights in a file beside the graph."""


@dataclass(frozen=True)
class Traced:
    """What is traced.

    Attributes:
        network: inputs -> one fp32 output [batch, width].
        body: the transformer inside it.
        inputs: example values by name, int64 [batch, sequence], with padding so that the trace sees some.
    """

    network: nn.Module
    body: nn.Module
    inputs: dict[str, torch.Tensor]
    output: str
    width: int


def write_graph(traced: Traced, folder: Path, opset: int, external_above: int = LARGEST_PROTOBUF) -> Path:
    """Write `folder`/model.onnx: int64 inputs [batch, sequence], both axes free, and the fp32 output [batch, width].

    Raises:
        PipelineError: the model cannot be traced at this operator set.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".trace.") as scratch:
        path = Path(scratch) / MODEL_FILE
        with _eager_attention(traced.body), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about constants in the trace; the parity gate is what judges them
            try:
                _trace(traced, path, opset)
            except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
                reason = str(error).strip().splitlines()[0]
                raise PipelineError(
                    f"{type(traced.body).__name__} cannot be written with ONNX operator set {opset}: {reason}",
                    fix="try a higher opset",
                ) from error
        graph = onnx.load(path)
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = traced.width  # the tracer leaves it open
    graph.producer_name = "pipeline export"
    path = save_graph(graph, folder, external_above)
    onnx.checker.check_model(str(path))
    return path


def _trace(traced: Traced, path: Path, opset: int) -> None:
    free = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        traced.network,
        tuple(traced.inputs.values()),
        str(path),
        dynamo=False,
        opset_version=opset,
        input_names=list(traced.inputs),
        output_names=[traced.output],
        dynamic_axes={**{name: free for name in traced.inputs}, traced.output: {0: "batch"}},
    )


def save_graph(graph: onnx.ModelProto, folder: Path, external_above: int = LARGEST_PROTOBUF) -> Path:
    """Write `folder`/model.onnx, the weights of a large one in one file beside it."""
    path = folder / MODEL_FILE
    if sum(len(weight.raw_data) for weight in graph.graph.initializer) > external_above:
        onnx.save_model(graph, path, save_as_external_data=True, location=WEIGHTS_FILE)
        onnx.load_external_data_for_model(graph, str(folder))  # saving took the weights out of `graph`
    else:
        onnx.save_model(graph, path)
    return path


def keep_norms_in_fp32(body: nn.Module) -> None:
    """Compute the norms of a half-precision body in fp32: the squares they sum may be too large for fp16."""
    for module in body.modules():
        if type(module).__name__.endswith("Norm"):
            module.to(torch.float32)
            module.register_forward_pre_hook(lambda _, inputs: tuple(item.to(torch.float32) for item in inputs))
            module.register_forward_hook(lambda _, inputs, output: output.to(torch.float16))


@contextmanager
def _eager_attention(network: Any) -> Iterator[None]:
    """Plain matrix products trace to the smallest graph, and onnxruntime fuses them best."""
    cache = getattr(network.config, "use_cache", None)
    before = network.config._attn_implementation
    network.set_attn_implementation("eager")
    if cache:
        network.config.use_cache = False
    try:
        yield
    finally:
        network.set_attn_implementation(before)
        if cache:
            network.config.use_cache = cache

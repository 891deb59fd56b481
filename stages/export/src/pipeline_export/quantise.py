"""Write the linear layers of a graph in 8 bits, as QuantizeLinear/DequantizeLinear pairs around each matrix product.

Only products with a constant matrix are touched. Norms, softmax, attention weights, pooling, heads and the output stay
fp32, so nothing has to be excluded by name. Both onnxruntime and TensorRT compute such a pair and the product between
as one 8-bit product; elsewhere the file means the same, rounding included.

NVIDIA's modelopt would do this too. Its `onnx` extra pins older onnxruntime-gpu, onnx and CUDA packages that cannot be
locked together with ours, and it has no SmoothQuant for ONNX graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import PipelineError

_FLOAT8_IR = 9
"""First version of the file format that knows 8-bit floats."""


@dataclass(frozen=True)
class Recipe:
    """One way to write a number in 8 bits.

    Attributes:
        name: as it stands in exports.json and in the name of the folder.
        largest: the largest number of the type; scales map the largest value seen to it.
        per_channel: weights have a scale for each output, not one for the matrix.
        smoothing: how much of the unevenness of activations moves into the weights (SmoothQuant's alpha), if any.
        opset: first ONNX operator set that knows the type.
    """

    name: str
    dtype: Any
    largest: float
    per_channel: bool
    smoothing: float | None
    opset: int

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """Numbers in units of the scale, in the 8-bit type."""
        clipped = np.clip(values, -self.largest, self.largest)
        return (np.rint(clipped) if self.dtype is np.int8 else clipped).astype(self.dtype)


# Smoothing 0.8: with MiniLM the paper's 0.5 was worse than none (docs/export.md says how this was chosen).
RECIPES = {
    "int8_sq": Recipe("int8", np.int8, 127, per_channel=True, smoothing=0.8, opset=13),
    # Per matrix: 8-bit floats span four decades by themselves, and engines read one scale everywhere.
    "fp8": Recipe("fp8", ml_dtypes.float8_e4m3fn, 448, per_channel=False, smoothing=None, opset=19),
}
"""By the value of quant_cfg."""


@dataclass(frozen=True)
class Linear:
    """Matrix products that read the same activation."""

    source: str
    nodes: list[onnx.NodeProto]


def linear_layers(graph: onnx.GraphProto) -> list[Linear]:
    """Products of an activation with a constant fp32 matrix, grouped by the activation, in graph order.

    Raises:
        PipelineError: there is none.
    """
    matrices = {item.name for item in graph.initializer if len(item.dims) == 2 and item.data_type == TensorProto.FLOAT}
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in matrices and node.input[0] not in matrices:
            found.setdefault(node.input[0], []).append(node)
    if not found:
        raise PipelineError(
            "quant_cfg: the graph has no product with a constant fp32 matrix to quantise", fix="set quant_cfg=null"
        )
    return [Linear(source, nodes) for source, nodes in found.items()]


def quantise(model: onnx.ModelProto, largest_seen: Mapping[str, np.ndarray], recipe: Recipe) -> int:
    """Quantise `model` in place; returns how many products are now 8-bit.

    Args:
        largest_seen: for each activation of `linear_layers`, the largest absolute value of each channel.
    """
    writer = _Writer(model.graph, recipe)
    layers = linear_layers(model.graph)
    for layer in layers:
        writer.rewrite(layer, largest_seen[layer.source])
    writer.finish()
    model.ir_version = max(model.ir_version, _FLOAT8_IR)
    return sum(len(layer.nodes) for layer in layers)


class _Writer:
    """Collects the new nodes; each is put right before the first product that needs it."""

    def __init__(self, graph: onnx.GraphProto, recipe: Recipe) -> None:
        self.graph, self.recipe = graph, recipe
        self.weights = {item.name: item for item in graph.initializer}
        self.before: dict[str, list[onnx.NodeProto]] = {}
        self.replaced: set[str] = set()

    def rewrite(self, layer: Linear, largest: np.ndarray) -> None:
        matrices = [numpy_helper.to_array(self.weights[node.input[1]]) for node in layer.nodes]
        new, source = [], layer.source
        smooth = np.ones_like(largest)
        if self.recipe.smoothing is not None:
            smooth = smoothing_factors(largest, matrices, self.recipe.smoothing)
            factors = self._constant(f"{source}/smooth", 1 / smooth)
            new.append(helper.make_node("Mul", [source, factors], [f"{source}/smoothed"], f"{source}/smooth_mul"))
            source = f"{source}/smoothed"
        scale = scale_of((largest / smooth).max(), self.recipe)
        new += self._pair(source, scale)
        for node, matrix in zip(layer.nodes, matrices, strict=True):
            weight = self._weight(f"{node.output[0]}/weight", matrix * smooth[:, None])
            self.before[node.output[0]] = [*new, weight]
            new = []  # the first product brings what all of them read
            self.replaced.add(node.input[1])
            node.input[0], node.input[1] = f"{source}/dequantised", weight.output[0]

    def _pair(self, source: str, scale: np.ndarray) -> list[onnx.NodeProto]:
        step = self._constant(f"{source}/scale", scale)
        zero = self._constant(f"{source}/zero", np.zeros((), self.recipe.dtype))
        quantised = f"{source}/quantised"
        return [
            helper.make_node("QuantizeLinear", [source, step, zero], [quantised], f"{source}/quantise"),
            helper.make_node("DequantizeLinear", [quantised, step, zero], [f"{source}/dequantised"], f"{source}/back"),
        ]

    def _weight(self, name: str, matrix: np.ndarray) -> onnx.NodeProto:
        """The matrix [in, out] in 8 bits and the node that reads it."""
        largest = np.abs(matrix).max(axis=0) if self.recipe.per_channel else np.abs(matrix).max()
        scale = scale_of(largest, self.recipe)
        inputs = [
            self._constant(name, self.recipe.rounded(matrix / scale)),
            self._constant(f"{name}/scale", scale),
            self._constant(f"{name}/zero", np.zeros(scale.shape, self.recipe.dtype)),
        ]
        axis = {"axis": 1} if self.recipe.per_channel else {}
        return helper.make_node("DequantizeLinear", inputs, [f"{name}/dequantised"], f"{name}/back", **axis)

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def finish(self) -> None:
        """Put the new nodes in their places and drop the matrices that nothing reads any more."""
        nodes = [new for node in self.graph.node for new in (*self.before.get(node.output[0], ()), node)]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        unread = self.replaced - {name for node in nodes for name in node.input}
        kept = [item for item in self.graph.initializer if item.name not in unread]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def scale_of(largest: Any, recipe: Recipe) -> np.ndarray:
    """Step so that `largest` becomes the type's largest number; where all values are zero any step does."""
    largest = np.asarray(largest, dtype=np.float32)
    return np.where(largest > 0, largest / np.float32(recipe.largest), np.float32(1)).astype(np.float32)


def smoothing_factors(largest: np.ndarray, matrices: list[np.ndarray], alpha: float) -> np.ndarray:
    """What each channel of the activation is divided by, and its rows of the matrices multiplied by: fp32 [channels].

    Xiao et al. 2023: max|x|^alpha / max|w|^(1 - alpha). One set for all products that read the activation. A channel
    that stayed small on the calibration texts counts as an average one: it may be large on the next text.
    """
    largest = np.maximum(largest, largest.mean())
    weights = np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0)
    used = (largest > 0) & (weights > 0)
    factors = np.ones_like(largest)
    factors[used] = largest[used] ** alpha / weights[used] ** (1 - alpha)
    return factors

"""How large the activations before each linear layer become on texts of the user's own domain."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from pipeline.retrieval.onnx_session import OnnxModel
from pipeline_export.graph import save_graph
from pipeline_export.quantise import linear_layers


class RecordingSession:
    """A session that gives what the graph gives, and remembers the largest absolute value of every watched channel."""

    def __init__(self, session: Any, watched: list[str]) -> None:
        self._session, self.watched = session, watched
        self.largest: dict[str, np.ndarray] = {}

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        found = self._session.run([*names, *self.watched], feeds)
        for name, values in zip(self.watched, found[len(names) :], strict=True):
            seen = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            self.largest[name] = np.maximum(self.largest.get(name, 0), seen)
        return found[: len(names)]


def largest_activations(
    model: onnx.ModelProto, exported: OnnxModel, samples: Iterable[Any], tokens: Callable[[OnnxModel, Any], Any]
) -> dict[str, np.ndarray]:
    """Largest absolute value of each channel of what each linear layer reads: name -> fp32 [channels].

    Samples run one at a time, so that padding is never counted. `exported` gives tokenizer and contract; its session is
    not used. `model` comes back as it was.
    """
    watched = [layer.source for layer in linear_layers(model.graph)]
    before = len(model.graph.output)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in watched)
    with tempfile.TemporaryDirectory(prefix="pipeline-calibration.") as scratch:
        path = save_graph(model, Path(scratch))
        del model.graph.output[before:]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        recorder = RecordingSession(session, watched)
        recording = exported.with_session(recorder)
        for sample in samples:
            recording.forward([tokens(exported, sample)])
    return recorder.largest

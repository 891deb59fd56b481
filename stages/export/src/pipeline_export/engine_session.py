"""Run a TensorRT engine on a GPU behind onnxruntime's `run`, so that the parity gate judges it like any export."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline_export.engine import SKIP, Shapes


class EngineSession:
    """One engine on the current CUDA device.

    Batches above the engine's largest are split, sequences below its shortest are padded (mask 0).

    Raises:
        PipelineError: the library does not load its own engine on this GPU.
    """

    def __init__(self, library: Any, blob: bytes, shapes: Shapes) -> None:
        self._log = library.Logger(library.Logger.ERROR)
        self._runtime = library.Runtime(self._log)  # must outlive the engine
        self._engine = self._runtime.deserialize_cuda_engine(blob)
        if self._engine is None:
            raise PipelineError(f"{library.__name__} does not load the engine that it has built on this GPU", fix=SKIP)
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream()
        self.shapes = shapes

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs by name, each fp32 [batch, width]; `feeds`: int64 [batch, sequence]."""
        (rows, length), most = next(iter(feeds.values())).shape, self.shapes.most[0]
        missing = max(0, self.shapes.least[1] - length)
        feeds = {name: np.pad(values, ((0, 0), (0, missing))) for name, values in feeds.items()}
        parts = [
            self._run(names, {name: values[start : start + most] for name, values in feeds.items()})
            for start in range(0, rows, most)
        ]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        rows = len(next(iter(feeds.values())))
        missing = max(0, self.shapes.least[0] - rows)
        with torch.cuda.stream(self._stream):
            inputs = {
                name: torch.from_numpy(np.pad(values, ((0, missing), (0, 0)), mode="edge")).cuda()
                for name, values in feeds.items()
            }
            for name, values in inputs.items():
                self._context.set_input_shape(name, tuple(values.shape))
                self._context.set_tensor_address(name, values.data_ptr())
            outputs = [torch.empty(tuple(self._context.get_tensor_shape(name)), device="cuda") for name in names]
            for name, values in zip(names, outputs, strict=True):
                self._context.set_tensor_address(name, values.data_ptr())
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise PipelineError("the engine could not be executed on this GPU", fix=SKIP)
            self._stream.synchronize()
        return [values[:rows].cpu().numpy() for values in outputs]

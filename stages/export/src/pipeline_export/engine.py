"""Build a TensorRT engine from an ONNX model. Precision is what the graph says: its casts and 8-bit pairs.

Building by the graph's own types is the one way that TensorRT 10, TensorRT 11 and TensorRT-RTX share; builder flags for
fp16 or fp8 are gone from the newer ones. The library is a parameter: it is imported only when an engine is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.schemas.export import ExportConfig

ENGINE_FILES = {"tensorrt": "model.plan", "tensorrt_rtx": "model.engine"}
"""By the name of the library, in the order in which they are tried. Neither reads the other's file."""
SKIP = "set export_to_trt=false to export ONNX only"


@dataclass(frozen=True)
class Shapes:
    """Shapes (batch, sequence) that an engine takes, and the one it is tuned for."""

    least: tuple[int, int]
    best: tuple[int, int]
    most: tuple[int, int]

    @classmethod
    def of(cls, config: ExportConfig, longest: int) -> Shapes:
        """The shapes of `trt_*`. `longest`: tokens that the model reads; no text is ever longer.

        Raises:
            PipelineError: a length lies beyond that.
        """
        most = longest if config.trt_max_seq_len is None else config.trt_max_seq_len
        if most > longest:
            raise PipelineError(
                f"trt_max_seq_len={most}: the model reads {longest} tokens at most", fix="leave trt_max_seq_len=null"
            )
        if config.trt_min_seq_len > most:
            raise PipelineError(
                f"trt_min_seq_len={config.trt_min_seq_len}: the model reads {longest} tokens at most",
                fix="lower trt_min_seq_len",
            )
        best = max(config.trt_min_seq_len, min(config.trt_opt_seq_len, most))
        return cls(
            (config.trt_min_batch, config.trt_min_seq_len),
            (config.trt_opt_batch, best),
            (config.trt_max_batch, most),
        )

    def as_record(self) -> dict[str, list[int]]:
        return {"min": list(self.least), "opt": list(self.best), "max": list(self.most)}


def find_library() -> Any:
    """The installed TensorRT, or else TensorRT-RTX.

    Raises:
        PipelineError: neither is installed, or it cannot be imported.
    """
    broken = []
    for name in ENGINE_FILES:
        if find_spec(name):
            try:
                return import_module(name)
            except Exception as error:  # ImportError of a missing driver library, but also OSError and RuntimeError
                broken.append(f"{name} cannot be imported here: {error}")
    raise PipelineError(
        "; ".join(broken) or "TensorRT is not installed here, so no engine was built",
        fix=f"{SKIP}, or install TensorRT in the environment of this stage (docs/export.md, TensorRT)",
    )


def build_engine(library: Any, onnx_path: Path, inputs: set[str], shapes: Shapes) -> bytes:
    """Build the engine of an ONNX model whose inputs are all int64 [batch, sequence].

    Args:
        library: the module tensorrt or tensorrt_rtx.
        inputs: names of the graph's inputs.

    Raises:
        PipelineError: it could not be built; tells everything that the library said.
    """
    log = _logger(library)
    try:
        blob = _build(library, log, onnx_path, inputs, shapes)
    except (RuntimeError, TypeError) as error:  # what its constructors raise, for instance without a usable driver
        log.errors.append(str(error))
        blob = None
    if blob is None:
        said = "\n".join(f"  {line}" for line in dict.fromkeys(log.errors)) or "  (it said nothing)"
        raise PipelineError(
            f"{library.__name__} {library.__version__} built no engine from {onnx_path}:\n{said}",
            fix=f"change trt_* or quant_cfg, or {SKIP}",
        )
    return blob


def _build(library: Any, log: Any, onnx_path: Path, inputs: set[str], shapes: Shapes) -> bytes | None:
    """The engine, or None after the reasons were written to `log`."""
    builder = library.Builder(log)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx_path)):
        log.errors += [parser.get_error(number).desc() for number in range(parser.num_errors)]
        return None
    found = {network.get_input(number).name for number in range(network.num_inputs)}
    if found != inputs:  # a shape for a name that the network lacks would be ignored silently
        log.errors.append(f"the network has the inputs {sorted(found)}, the ONNX model {sorted(inputs)}")
        return None
    profile = builder.create_optimization_profile()
    for name in sorted(inputs):
        profile.set_shape(name, shapes.least, shapes.best, shapes.most)
    settings = builder.create_builder_config()
    settings.clear_flag(library.BuilderFlag.TF32)  # 11 bits in the name of fp32; who wants them asks for fp16
    if settings.add_optimization_profile(profile) < 0:
        return None
    blob = builder.build_serialized_network(network, settings)
    return None if blob is None else bytes(blob)


def _logger(library: Any) -> Any:
    """A logger of the library that keeps errors in `errors`: its calls report failure by None, False or -1 alone."""

    class Log(library.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()

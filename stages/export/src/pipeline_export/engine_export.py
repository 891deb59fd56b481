"""The folder of a TensorRT engine: engine, tokenizer, contract and metadata, so that it can be served alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.retrieval.onnx_session import METADATA_FILE, MODEL_FILE, OnnxModel
from pipeline.run.files import read_json, replacing_folder, write_json
from pipeline_export.engine import ENGINE_FILES, Shapes, build_engine
from pipeline_export.engine_session import EngineSession
from pipeline_export.listing import NOT_EXECUTED, Export
from pipeline_export.package import file_record
from pipeline_export.parity import Parity


def export_engine(
    library: Any,
    source: Export,
    opened: OnnxModel,
    target: Path,
    shapes: Shapes,
    compare: Callable[[OnnxModel], Parity],
) -> Export:
    """Build the engine of a published ONNX form and publish it in `target`; where it can be run it is judged first.

    Args:
        opened: `source`, opened.
        compare: judges an export, and raises if it does not hold.
    """
    metadata = read_json(source.folder / METADATA_FILE)
    name = ENGINE_FILES[library.__name__]
    with replacing_folder(target) as folder:
        inputs = {port["name"] for port in metadata["inputs"]}
        blob = build_engine(library, source.folder / MODEL_FILE, inputs, shapes)
        (folder / name).write_bytes(blob)
        _copy_the_rest(source.folder, folder)
        parity = None
        if library.__name__ == "tensorrt" and torch.cuda.is_available():
            parity = compare(opened.with_session(EngineSession(library, blob, shapes)))
        write_json(
            folder / METADATA_FILE,
            {
                **metadata,
                "format": library.__name__,
                "files": {name: file_record(folder / name)},
                "shapes": shapes.as_record(),
                "executed": parity is not None or NOT_EXECUTED,
                "onnx": metadata["files"][MODEL_FILE],
                "versions": {**metadata["versions"], library.__name__: library.__version__},
            },
        )
    note = f"{library.__name__} {library.__version__}, batch {shapes.most[0]} × {shapes.most[1]} tokens at most"
    return Export(target, library.__name__, source.dtype, name, parity, note)


def _copy_the_rest(source: Path, folder: Path) -> None:
    """Tokenizer and contract: everything but the graph, its weights and what is said about them."""
    for path in source.iterdir():
        if not path.name.startswith(MODEL_FILE) and path.name != METADATA_FILE:
            shutil.copyfile(path, folder / path.name)

"""Write a tuned bi-encoder as ONNX and prove that it gives torch's vectors."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.encoder import BiEncoder, LoadOptions
from pipeline.retrieval.onnx_encoder import METADATA_FILE, MODEL_FILE, OnnxEncoder
from pipeline.run.files import replacing_folder, write_json
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.export import EmbedExportConfig
from pipeline_export.graph import write_graph
from pipeline_export.package import source_model, write_metadata, write_package
from pipeline_export.parity import TOP, Parity, Reference, compare
from pipeline_export.texts import ParityText, parity_texts

FP16_MIN_COSINE = 0.999
"""fp16 keeps 11 bits of a number: its vectors may lie this far from torch's fp32 ones."""


@dataclass(frozen=True)
class Export:
    """One published folder."""

    name: str
    folder: Path
    dtype: str
    parity: Parity

    @property
    def size(self) -> int:
        """Bytes of the graph and its weights."""
        return sum(path.stat().st_size for path in self.folder.glob(f"{MODEL_FILE}*"))


def main(config: EmbedExportConfig, run: StageRun) -> StageResult:
    """Trace the model, compare it with torch on real texts, publish what holds, list it in `exports.json`."""
    refuse_what_is_not_here(config, run)
    source, contract = source_model(config.model_path)
    targets = {"fp32": Path(config.onnx_export_path)}
    if config.export_dtype == "fp16":
        targets["fp16"] = Path(f"{config.onnx_export_path}_fp16")
    check_targets(targets)

    run.log.info(f"export: {source.resolve()}, {contract.pooling} pooling, up to {contract.passage_max_length} tokens")
    model = BiEncoder.load(str(source), contract, options=LoadOptions(trust_remote_code=config.trust_remote_code))
    data = parity_data(config, run)
    texts = parity_texts(data, contract, config.parity_texts)
    reference = Reference.of(model, texts)

    exports, report = [], run.folder / "parity_report.json"
    for dtype, target in targets.items():
        limit = config.parity_min_cosine if dtype == "fp32" else min(config.parity_min_cosine, FP16_MIN_COSINE)
        with replacing_folder(target) as folder:
            exported = write_export(model, source, contract, folder, dtype, config.opset)
            parity = compare(reference, exported, texts, dtype, limit)
            write_report(report, [*(item.parity for item in exports), parity], texts, data)
            parity.require()
        exports.append(Export(target.name, target, dtype, parity))
        listing = write_listing(run.folder, exports)
        run.log.info(f"export: {dtype} published, lowest cosine {parity.cosine:.7f} over {parity.texts} texts")

    return StageResult(
        outputs=[*(item.folder for item in exports), report, listing],
        counts={"exports": len(exports), "texts_compared": len(texts)},
        metrics={item.dtype: item.parity.as_record() for item in exports},
        headline=headline(exports, config.opset, data),
        next_command=f"pipeline {run.family.name} deploy{run.config_hint}",
        failure=tensorrt_failure(exports[0].folder) if config.export_to_trt else None,
    )


def refuse_what_is_not_here(config: EmbedExportConfig, run: StageRun) -> None:
    if run.family.name != "embed":
        raise PipelineError(f"export of {run.family.name} models arrives with a later release")
    if config.quant_cfg:
        raise PipelineError(
            f"quant_cfg={config.quant_cfg}: quantised exports arrive with a later release",
            fix="leave quant_cfg=null; export_dtype=fp16 halves the size today",
        )


def check_targets(targets: dict[str, Path]) -> None:
    """An export replaces a whole folder; never one that holds something else."""
    for folder in targets.values():
        if folder.exists() and not (folder / METADATA_FILE).is_file() and any(folder.iterdir()):
            raise PipelineError(
                f"onnx_export_path: {folder} exists and is not an export, so it is not replaced",
                fix="choose a new or empty folder",
            )


def parity_data(config: EmbedExportConfig, run: StageRun) -> Path | None:
    """The folder of the parity texts, or None: a checkpoint may be exported without the stages before it."""
    folder = Path(config.parity_data_path).expanduser() if config.parity_data_path else None
    if folder and not folder.is_dir():
        if "parity_data_path" in run.explicit:
            raise PipelineError(f"parity_data_path: {folder} does not exist", fix="give a BEIR folder, or null")
        run.log.warning(f"export: no {folder}; parity is checked on built-in texts instead")
        return None
    return folder


def write_export(
    model: BiEncoder, source: Path, contract: EncodingContract, folder: Path, dtype: str, opset: int
) -> OnnxEncoder:
    """Fill `folder` with graph, tokenizer, contract and metadata; returns the export, opened as the server opens it."""
    if dtype == "fp16":
        model.model.to(torch.float16)  # pooling and the output stay fp32
    write_graph(model, folder, opset)
    written = write_package(model, source, contract, folder)
    exported = OnnxEncoder.load(folder)
    write_metadata(folder, source, written, exported.session, dtype, opset)
    return exported


def write_report(path: Path, results: list[Parity], texts: list[ParityText], data: Path | None) -> Path:
    return write_json(
        path,
        {
            "schema_version": 1,
            "texts": {
                "from": str(data) if data else "built-in",
                "queries": sum(item.kind == "query" for item in texts),
                "passages": sum(item.kind == "passage" for item in texts),
            },
            "results": [result.as_record() for result in results],
        },
    )


def write_listing(folder: Path, exports: list[Export]) -> Path:
    """`exports.json`: what there is, and which one to serve. fp32 is the default: CPUs compute it fastest."""
    entries: dict[str, Any] = {
        item.name: {
            "path": _shown(item.folder, folder),
            "format": "onnx",
            "dtype": item.dtype,
            "bytes": item.size,
            "parity": {"passed": item.parity.passed, "cosine": item.parity.cosine, "texts": item.parity.texts},
        }
        for item in exports
    }
    return write_json(folder / "exports.json", {"schema_version": 1, "default": exports[0].name, "exports": entries})


def _shown(path: Path, folder: Path) -> str:
    """Relative inside the stage's folder, so that a moved run stays true; else absolute."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path.resolve())


def headline(exports: list[Export], opset: int, data: Path | None) -> list[tuple[str, str]]:
    rows = []
    for item in exports:
        parity = item.parity
        closeness = f"lowest cosine {parity.cosine:.7f} (needs {parity.min_cosine})"
        closeness += f", largest difference {parity.max_abs_diff:.1e}, top {TOP} agreement {parity.top_agreement:.1%}"
        speed = f"onnxruntime {parity.onnx_texts_per_second}, torch {parity.torch_texts_per_second}"
        rows += [
            (f"ONNX {item.dtype}", f"{item.size / 1e6:.1f} MB, opset {opset}, {item.folder}"),
            ("  parity with torch", closeness),
            ("  texts per second", f"{speed} (one at a time, this machine)"),
        ]
    compared = exports[0].parity
    origin = "of the test set" if data else "built in"
    rows.append(("texts compared", f"{compared.texts} {origin}, {compared.shortest}–{compared.longest} tokens"))
    return rows


def tensorrt_failure(onnx_folder: Path) -> str:
    """Why there is no engine. The ONNX model is saved by now."""
    saved = f"the ONNX model is saved in {onnx_folder} and can be served"
    if find_spec("tensorrt") is None:
        return f"TensorRT is not installed here, so no engine was built; {saved}. Set export_to_trt=false to skip it."
    return f"building TensorRT engines arrives with a later release; {saved}. Set export_to_trt=false to skip it."


def cli() -> None:
    run_stage("export", main)


if __name__ == "__main__":
    cli()

"""Write a tuned model as ONNX and prove that it gives what torch gives."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.encoder import LoadOptions
from pipeline.retrieval.onnx_session import METADATA_FILE, MODEL_FILE, OnnxModel
from pipeline.run.files import replacing_folder, write_json
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.export import ExportConfig
from pipeline_export.families import FAMILIES, ExportFamily
from pipeline_export.graph import write_graph
from pipeline_export.package import source_model, write_metadata, write_package
from pipeline_export.parity import Parity


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


def main(config: ExportConfig, run: StageRun) -> StageResult:
    """Trace the model, compare it with torch on real texts, publish what holds, list it in `exports.json`."""
    refuse_what_is_not_here(config)
    family = FAMILIES[type(config)]
    source, contract = source_model(config.model_path, run.family.name)
    contract = contract.under(config, run.command_line, str(source))
    targets = {"fp32": Path(config.onnx_export_path)}
    if config.export_dtype == "fp16":
        targets["fp16"] = Path(f"{config.onnx_export_path}_fp16")
    check_targets(targets)

    longest = contract.max_length(family.kind)
    run.log.info(f"export: {source.resolve()}, {contract.pooling} pooling, up to {longest} tokens")
    model = family.load(str(source), contract, LoadOptions(trust_remote_code=config.trust_remote_code))
    data = parity_data(config, run)
    samples = family.samples(data, contract, config.parity_texts)
    reference = family.reference(model, samples)

    exports, report = [], run.folder / "parity_report.json"
    for dtype, target in targets.items():
        with replacing_folder(target) as folder:
            exported = write_export(family, model, source, contract, folder, dtype, config.opset)
            parity = family.compare(reference, exported, samples, dtype, config)
            write_report(report, [*(item.parity for item in exports), parity], family.counts(samples), data)
            parity.require()
        exports.append(Export(target.name, target, dtype, parity))
        listing = write_listing(run.folder, exports)
        run.log.info(f"export: {dtype} published; {parity.compared} {parity.unit}: {parity.shown()}")

    return StageResult(
        outputs=[*(item.folder for item in exports), report, listing],
        counts={"exports": len(exports), f"{exports[0].parity.unit}_compared": len(samples)},
        metrics={item.dtype: item.parity.as_record() for item in exports},
        headline=headline(exports, config.opset, data),
        next_command=f"pipeline {run.family.name} deploy{run.config_hint}",
        failure=tensorrt_failure(exports[0].folder) if config.export_to_trt else None,
    )


def refuse_what_is_not_here(config: ExportConfig) -> None:
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


def parity_data(config: ExportConfig, run: StageRun) -> Path | None:
    """The folder of the parity texts, or None: a checkpoint may be exported without the stages before it."""
    folder = Path(config.parity_data_path).expanduser() if config.parity_data_path else None
    if folder and not folder.is_dir():
        if "parity_data_path" in run.explicit:
            raise PipelineError(f"parity_data_path: {folder} does not exist", fix="give a BEIR folder, or null")
        run.log.warning(f"export: no {folder}; parity is checked on built-in texts instead")
        return None
    return folder


def write_export(
    family: ExportFamily, model: Any, source: Path, contract: EncodingContract, folder: Path, dtype: str, opset: int
) -> OnnxModel:
    """Fill `folder` with graph, tokenizer, contract and metadata; returns the export, opened as the server opens it."""
    traced = family.traced(model)
    if dtype == "fp16":
        traced.body.to(torch.float16)  # pooling, a head of ours and the output stay fp32
    write_graph(traced, folder, opset)
    written = write_package(model, source, contract, folder)
    exported = family.opened.load(folder)
    write_metadata(folder, source, written, family.encoding(written), exported.session, dtype, opset)
    return exported


def write_report(path: Path, results: list[Parity], counts: dict[str, int], data: Path | None) -> Path:
    return write_json(
        path,
        {
            "schema_version": 1,
            "texts": {"from": str(data) if data else "built-in", **counts},
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
            "parity": {"passed": item.parity.passed, **item.parity.listed()},
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
        speed = f"onnxruntime {parity.onnx_per_second}, torch {parity.torch_per_second}"
        rows += [
            (f"ONNX {item.dtype}", f"{item.size / 1e6:.1f} MB, opset {opset}, {item.folder}"),
            ("  parity with torch", parity.shown()),
            (f"  {parity.unit} per second", f"{speed} (one at a time, this machine)"),
        ]
    first = exports[0].parity
    origin = "of the test set" if data else "built in"
    rows.append((f"{first.unit} compared", f"{first.compared} {origin}, {first.shortest}–{first.longest} tokens"))
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

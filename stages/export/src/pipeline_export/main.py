"""Write a tuned model as ONNX (and TensorRT) and prove that it gives what torch gives."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.encoder import LoadOptions
from pipeline.retrieval.onnx_session import METADATA_FILE, MODEL_FILE
from pipeline.run.files import replacing_folder
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.export import ExportConfig
from pipeline_export.calibration import examples_of
from pipeline_export.engine import Shapes, find_library
from pipeline_export.engine_export import export_engine
from pipeline_export.families import FAMILIES, ExportFamily
from pipeline_export.forms import Form, Model, forms_of, write_form
from pipeline_export.judge import Judge
from pipeline_export.listing import Export, Listing, headline
from pipeline_export.package import source_model


def main(config: ExportConfig, run: StageRun) -> StageResult:
    """Trace the model, compare it with torch on real texts, publish what holds, list it in `exports.json`.

    The fp32 form must hold. Another form or the engine that fails is not published, and fails the stage at the end.
    """
    family, forms = FAMILIES[type(config)], forms_of(config)
    check_targets([form.folder for form in forms], "onnx_export_path")
    source, contract = source_model(config.model_path, run.family.name)
    contract = contract.under(config, run.command_line, str(source))
    longest = contract.max_length(family.kind)
    shapes = Shapes.of(config, longest) if config.export_to_trt else None
    if shapes:
        check_targets([Path(config.trt_model_path)], "trt_model_path")
    targets = [*(form.folder for form in forms), *([Path(config.trt_model_path)] if shapes else [])]
    listing = Listing(run.folder, targets)

    run.log.info(f"export: {source.resolve()}, {contract.pooling} pooling, up to {longest} tokens")
    loaded = family.load(str(source), contract, LoadOptions(trust_remote_code=config.trust_remote_code))
    data = parity_data(config, run)
    samples = family.samples(data, contract, config.parity_texts)
    judge = Judge(family, config, samples, family.reference(loaded, samples), run.folder, data)
    model = Model(family, loaded, source, contract, *calibration(family, config, run, contract, data))

    exports, failures = [], []
    steps = [partial(publish, model, form, judge, listing) for form in forms]
    if shapes:
        steps.append(partial(publish_engine, config, exports, forms, family, shapes, judge))
    for step in steps:
        try:
            exports.append(step())
        except PipelineError as error:
            if not exports:
                raise
            failures.append(str(error))
            continue
        listing.write(exports)
        run.log.info(f"export: {exports[-1].name} published")
    for folder in listing.left_over():
        run.log.warning(f"export: {folder} is of an earlier model and not listed any more; deploy refuses it")

    return StageResult(
        outputs=[*(item.folder for item in exports), run.folder / "parity_report.json", listing.path],
        counts={"exports": len(exports), f"{judge.first.unit}_compared": len(samples)},
        metrics={item.name: item.parity.as_record() for item in exports if item.parity},
        headline=headline(exports, judge.first, data),
        next_command=f"pipeline {run.family.name} deploy{run.config_hint}",
        failure="\n".join([*failures, f"the ONNX model is saved in {exports[0].folder}"]) if failures else None,
    )


def check_targets(folders: list[Path], key: str) -> None:
    """An export replaces a whole folder; never one that holds something else."""
    for folder in folders:
        if folder.exists() and not (folder / METADATA_FILE).is_file() and any(folder.iterdir()):
            raise PipelineError(
                f"{key}: {folder} exists and is not an export, so it is not replaced",
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


def calibration(
    family: ExportFamily, config: ExportConfig, run: StageRun, contract: EncodingContract, data: Path | None
) -> tuple[list[Any], dict[str, Any]]:
    """What an 8-bit form is calibrated on, in the form of the parity samples, and the record of it."""
    if not config.quant_cfg:
        return [], {}
    examples = examples_of(config, run, contract, data)
    items = examples.items
    if "calibration_query" in run.command_line:
        items = [(None, passage) for _, passage in items]
    samples = family.calibration(items, contract, config)
    return samples, {"from": examples.origin, "samples": len(samples), "seed": config.seed}


def publish(model: Model, form: Form, judge: Judge, listing: Listing) -> Export:
    with replacing_folder(form.folder) as folder:
        parity = judge(write_form(model, form, folder), form.dtype)
        if form.dtype == "fp32":
            listing.withdraw()
    return Export(form.folder, "onnx", form.dtype, MODEL_FILE, parity, f"opset {form.opset}")


def publish_engine(
    config: ExportConfig,
    exports: list[Export],
    forms: list[Form],
    family: ExportFamily,
    shapes: Shapes,
    judge: Judge,
) -> Export:
    """The engine of the smallest form that was asked for: 8 bits before half precision before fp32."""
    wanted = next((form for form in forms if form.recipe), forms[-1])
    source = next((item for item in exports if item.folder == wanted.folder), None)
    if source is None:
        raise PipelineError(f"no engine was built, because its {wanted.dtype} ONNX model was not published")
    compare = partial(judge, dtype=source.dtype, form="TensorRT engine", longest=shapes.most[1])
    opened = family.opened.load(source.folder)
    return export_engine(find_library(), source, opened, Path(config.trt_model_path), shapes, compare)


def cli() -> None:
    run_stage("export", main)


if __name__ == "__main__":
    cli()

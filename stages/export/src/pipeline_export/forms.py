"""The forms in which one model is written: fp32 always, half size or 8 bits beside it when asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from pipeline.contract import EncodingContract
from pipeline.retrieval.onnx_session import MODEL_FILE, OnnxModel
from pipeline.schemas.export import ExportConfig
from pipeline_export.families import ExportFamily
from pipeline_export.graph import keep_norms_in_fp32, save_graph, write_graph
from pipeline_export.package import write_metadata, write_package
from pipeline_export.quantise import RECIPES, Recipe, quantise
from pipeline_export.ranges import largest_activations


@dataclass(frozen=True)
class Form:
    """One folder to write: `dtype` names it in exports.json, `recipe` is there for 8 bits."""

    dtype: str
    folder: Path
    opset: int
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Model:
    """What all forms are written from. `calibration`: samples that 8-bit forms are calibrated on, and their origin."""

    family: ExportFamily
    loaded: Any
    source: Path
    contract: EncodingContract
    calibration: list[Any]
    calibration_record: dict[str, Any]


def forms_of(config: ExportConfig) -> list[Form]:
    """fp32 first; fp16 last, because casting the weights leaves nothing to trace in fp32."""
    plain, opset = config.onnx_export_path, config.opset
    forms = [Form("fp32", Path(plain), opset)]
    if config.quant_cfg:
        recipe = RECIPES[config.quant_cfg]
        forms.append(Form(recipe.name, Path(f"{plain}_{recipe.name}"), max(opset, recipe.opset), recipe))
    if config.export_dtype == "fp16":
        forms.append(Form("fp16", Path(f"{plain}_fp16"), opset))
    return forms


def write_form(model: Model, form: Form, folder: Path) -> OnnxModel:
    """Fill `folder` with graph, tokenizer, contract and metadata; returns the export, opened as the server opens it."""
    traced = model.family.traced(model.loaded)
    if form.dtype == "fp16":
        traced.body.to(torch.float16)  # pooling, a head of ours and the output stay fp32
        keep_norms_in_fp32(traced.body)
    write_graph(traced, folder, form.opset)
    written = write_package(model.loaded, model.source, model.contract, folder)
    exported = model.family.opened.load(folder)
    more: dict[str, Any] = {}
    if form.recipe:
        products = _quantise(model, form.recipe, exported, folder)
        more = {
            "optimise": form.recipe.name != "fp8",  # onnxruntime's optimiser breaks graphs with 8-bit floats
            "quantisation": {
                "products": products,
                "smoothing": form.recipe.smoothing,
                "calibration": model.calibration_record,
            },
        }
    encoding = model.family.encoding(written)
    write_metadata(folder, model.source, written, encoding, exported.session, form.dtype, form.opset, more)
    return model.family.opened.load(folder) if form.recipe else exported


def _quantise(model: Model, recipe: Recipe, exported: OnnxModel, folder: Path) -> int:
    """Turn the fp32 graph in `folder` into its 8-bit form; returns how many products are 8-bit."""
    graph = onnx.load(folder / MODEL_FILE)
    largest = largest_activations(graph, exported, model.calibration, model.family.tokens)
    products = quantise(graph, largest, recipe)
    for path in folder.glob(f"{MODEL_FILE}*"):
        path.unlink()
    path = save_graph(graph, folder)
    onnx.checker.check_model(str(path))
    return products

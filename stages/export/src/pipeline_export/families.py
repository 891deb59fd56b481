"""What differs between the export of a bi-encoder and of a cross-encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.contract import EncodingContract
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.encoder import BiEncoder, LoadOptions
from pipeline.retrieval.onnx_encoder import OnnxEncoder
from pipeline.retrieval.onnx_scorer import OUTPUT, TYPES_INPUT, OnnxScorer
from pipeline.retrieval.onnx_session import OnnxModel
from pipeline.schemas.export import EmbedExportConfig, ExportConfig, RerankExportConfig
from pipeline_export import logit_parity, vector_parity
from pipeline_export.calibration import Example
from pipeline_export.graph import Traced
from pipeline_export.pairs import ParityPair, parity_pairs
from pipeline_export.parity import Parity, Reference
from pipeline_export.quantise import RECIPES
from pipeline_export.texts import ParityText, parity_texts

FP16_MIN_COSINE = 0.999
"""fp16 keeps 11 bits of a number: its vectors may lie this far from torch's fp32 ones."""
FP16_MAX_LOGIT_DIFF = 0.02
"""The same for logits, as a share of their spread."""
QUANTISED = frozenset(recipe.name for recipe in RECIPES.values())
_TRACED_TEXTS = ["one text", "another text, longer than the first, so that the trace sees padding"]


@dataclass(frozen=True)
class ExportFamily:
    """One family's parts: how a model is loaded, traced, described, opened again and compared."""

    kind: str
    """What of the contract limits the length: "passage" or "pair"."""
    load: Callable[[str, EncodingContract, LoadOptions], Any]
    traced: Callable[[Any], Traced]
    encoding: Callable[[EncodingContract], dict[str, Any]]
    opened: type[OnnxModel]
    samples: Callable[[Path | None, EncodingContract, int], list[Any]]
    tokens: Callable[[Any, Any], list[int]]
    """One sample under the export's own tokenizer."""
    length: Callable[[Any], int]
    """Tokens of one sample, as `Reference.tokens` has them."""
    calibration: Callable[[list[Example], EncodingContract, Any], list[Any]]
    """What a quantised model is calibrated on, in the form of the samples."""
    counts: Callable[[list[Any]], dict[str, int]]
    reference: Callable[[Any, list[Any]], Reference]
    compare: Callable[[Reference, Any, list[Any], str, Any], Parity]


def _trace_embed(model: BiEncoder) -> Traced:
    ids, mask = model.collate(model.tokenize(_TRACED_TEXTS, "passage"))
    inputs = {"input_ids": ids, "attention_mask": mask}
    return Traced(model, model.model, inputs, "embeddings", int(model.contract.dimension or 0))


def _encode_embed(contract: EncodingContract) -> dict[str, Any]:
    return {**contract.describe(), "padding_side": "right"}


def _compare_embed(
    reference: Reference, exported: OnnxEncoder, texts: list[Any], dtype: str, config: EmbedExportConfig
) -> Parity:
    limit, name = config.parity_min_cosine, "parity_min_cosine"
    if dtype in QUANTISED:
        limit, name = config.quant_min_cosine, "quant_min_cosine"
    elif dtype == "fp16":
        limit = min(limit, FP16_MIN_COSINE)
    return vector_parity.compare(reference, exported, texts, dtype, limit, name)


def _calibrate_embed(examples: list[Example], contract: EncodingContract, config: EmbedExportConfig) -> list[Any]:
    questions = [ParityText("query", contract.format_query(question)) for question, _ in examples if question]
    return [*dict.fromkeys(questions), *dict.fromkeys(ParityText("passage", passage) for _, passage in examples)]


class _Logits(nn.Module):
    """Scores as the documented output: fp32 [batch, labels], of which a reranker has one."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(*inputs).unsqueeze(1)


def _trace_rerank(model: CrossEncoder) -> Traced:
    ids, mask, types = model.collate(*model.tokenize(_TRACED_TEXTS, _TRACED_TEXTS))
    inputs = {"input_ids": ids, "attention_mask": mask}
    if types is not None:
        inputs[TYPES_INPUT] = types
    return Traced(_Logits(model).eval(), model.body, inputs, OUTPUT, 1)


def _encode_rerank(contract: EncodingContract) -> dict[str, Any]:
    return {
        **contract.describe(),
        "pair": "the tokenizer's form for two texts" if contract.prompt_template is None else "prompt_template",
        "rerank_max_length": contract.max_length("pair"),
        "cut": "passage",
        "padding_side": "right",
    }


def _compare_rerank(
    reference: Reference, exported: OnnxScorer, pairs: list[Any], dtype: str, config: RerankExportConfig
) -> Parity:
    limit, name = config.parity_max_logit_diff, "parity_max_logit_diff"
    if dtype in QUANTISED:
        limit, name = config.quant_max_logit_diff, "quant_max_logit_diff"
    elif dtype == "fp16":
        limit = max(limit, FP16_MAX_LOGIT_DIFF)
    return logit_parity.compare(reference, exported, pairs, dtype, limit, name)


FAMILIES: dict[type[ExportConfig], ExportFamily] = {
    EmbedExportConfig: ExportFamily(
        kind="passage",
        load=lambda place, contract, options: BiEncoder.load(place, contract, options=options),
        traced=_trace_embed,
        encoding=_encode_embed,
        opened=OnnxEncoder,
        samples=parity_texts,
        tokens=lambda exported, text: exported.tokenize([text.text], text.kind)[0],
        length=len,
        calibration=_calibrate_embed,
        counts=lambda texts: {
            "queries": sum(item.kind == "query" for item in texts),
            "passages": sum(item.kind == "passage" for item in texts),
        },
        reference=vector_parity.reference_of,
        compare=_compare_embed,
    ),
    RerankExportConfig: ExportFamily(
        kind="pair",
        load=lambda place, contract, options: CrossEncoder.load(place, contract, options=options),
        traced=_trace_rerank,
        encoding=_encode_rerank,
        opened=OnnxScorer,
        samples=parity_pairs,
        tokens=lambda exported, pair: exported.tokenize([(pair.query, pair.passage)])[0],
        length=lambda item: len(item[0]),
        calibration=lambda examples, contract, config: [
            ParityPair(question or config.calibration_query, passage) for question, passage in examples
        ],
        counts=lambda pairs: {"queries": len({item.query for item in pairs}), "pairs": len(pairs)},
        reference=logit_parity.reference_of,
        compare=_compare_rerank,
    ),
}

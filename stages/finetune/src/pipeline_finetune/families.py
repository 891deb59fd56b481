"""What differs between training a bi-encoder and a cross-encoder, beside the step itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.contract import EncodingContract
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.transformer import LoadOptions
from pipeline.schemas.finetune import EmbedFinetuneConfig, FinetuneConfig, RerankFinetuneConfig
from pipeline_finetune.data import Encode, TrainingData
from pipeline_finetune.distributed import TrainingWorld
from pipeline_finetune.embed import EmbedTraining
from pipeline_finetune.losses.base import Loss
from pipeline_finetune.losses.infonce import InfoNCE
from pipeline_finetune.losses.kl import DistillKL
from pipeline_finetune.losses.listwise import ListwiseSoftmax
from pipeline_finetune.losses.margin_mse import MarginMSE
from pipeline_finetune.losses.matryoshka import Matryoshka
from pipeline_finetune.losses.pointwise import PointwiseBCE
from pipeline_finetune.losses.vectors import VectorLoss
from pipeline_finetune.rerank import RerankTraining
from pipeline_finetune.similarity import dot, late_interaction
from pipeline_finetune.steps import WatchedLoss
from pipeline_finetune.strategy import Compute, Training

log = logging.getLogger("pipeline")

LOSSES: dict[str, Callable[[float], Loss]] = {
    "infonce": InfoNCE,
    "listwise": ListwiseSoftmax,
    "pointwise": PointwiseBCE,
    "kl": DistillKL,
    "margin_mse": lambda _: MarginMSE(),
}
"""Configuration word -> the loss at a temperature."""


@dataclass(frozen=True)
class FamilyTraining:
    """One family's parts: how it is loaded, tokenised and trained."""

    load: Callable[[str, EncodingContract, torch.device, LoadOptions, int], Any]
    encode: Callable[[Any], Encode]
    training: Callable[[Any, Any, TrainingData, Compute, TrainingWorld], Training]
    bodies: Callable[[Any], list[nn.Module]]
    longest: Callable[[EncodingContract], int]
    needs_negatives: Callable[[Any], bool]
    report: Callable[[Any], None]


def _load_embed(
    place: str, contract: EncodingContract, device: torch.device, options: LoadOptions, seed: int
) -> BiEncoder:
    return BiEncoder.load(place, contract, device=device, options=options)


def _encode_embed(encoder: BiEncoder) -> Encode:
    return Encode(
        encoder.contract,
        tokenize_queries=lambda texts: encoder.tokenize(texts, "query"),
        tokenize_passages=lambda texts: encoder.tokenize(texts, "passage"),
    )


def _train_embed(
    config: EmbedFinetuneConfig, encoder: BiEncoder, data: TrainingData, compute: Compute, world: TrainingWorld
) -> EmbedTraining:
    watched = WatchedLoss(LOSSES[config.loss](config.temperature))
    similarity = late_interaction if encoder.contract.pooling == "colbert" else dot
    loss: VectorLoss | Matryoshka = VectorLoss(watched, similarity, false_negative_margin=config.false_negative_margin)
    if config.matryoshka_dims:
        width, normalize = encoder.contract.dimension, encoder.contract.normalize
        loss = Matryoshka(loss, config.matryoshka_dims, width=width, normalize=normalize)  # type: ignore[arg-type]
    return EmbedTraining(
        encoder,
        data,
        loss=loss,
        watched=watched,
        in_batch_negatives=config.in_batch_negatives,
        cross_rank=config.cross_rank_negatives and world.size > 1,
        compute=compute,
        world=world,
    )


def _embed_bodies(encoder: BiEncoder) -> list[nn.Module]:
    return [encoder.model] if encoder.query_model is None else [encoder.model, encoder.query_model]


def _load_rerank(
    place: str, contract: EncodingContract, device: torch.device, options: LoadOptions, seed: int
) -> CrossEncoder:
    return CrossEncoder.load(place, contract, device=device, options=options, seed=seed)


def _train_rerank(
    config: RerankFinetuneConfig, encoder: CrossEncoder, data: TrainingData, compute: Compute, world: TrainingWorld
) -> RerankTraining:
    loss = WatchedLoss(LOSSES[config.loss](config.temperature))
    return RerankTraining(encoder, data, loss=loss, temperature=config.temperature, compute=compute, world=world)


def _report_cuts(encoder: CrossEncoder) -> None:
    if encoder.cut.pairs:
        log.info("read %s", encoder.cut)


FAMILIES: dict[type[FinetuneConfig], FamilyTraining] = {
    EmbedFinetuneConfig: FamilyTraining(
        load=_load_embed,
        encode=_encode_embed,
        training=_train_embed,
        bodies=_embed_bodies,
        longest=lambda contract: max(contract.query_max_length, contract.passage_max_length),
        needs_negatives=lambda config: not config.in_batch_negatives,
        report=lambda encoder: None,
    ),
    RerankFinetuneConfig: FamilyTraining(
        load=_load_rerank,
        encode=lambda encoder: Encode(encoder.contract, tokenize_pairs=encoder.tokenize),
        training=_train_rerank,
        bodies=lambda encoder: [encoder.body],
        longest=lambda contract: contract.max_length("pair"),
        needs_negatives=lambda config: True,
        report=_report_cuts,
    ),
}

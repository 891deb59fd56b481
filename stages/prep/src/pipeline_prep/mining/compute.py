"""How the search runs, as the configuration says."""

from __future__ import annotations

import logging

import numpy as np
import torch

from pipeline.retrieval.passages import Passages
from pipeline.retrieval.world import World
from pipeline.schemas.mining import MiningCompute
from pipeline_prep.mining.approximate import ApproximateIndex
from pipeline_prep.mining.pool import Compute

log = logging.getLogger("pipeline")
_RECALL_AT = 20


def make_compute(
    config: MiningCompute, device: torch.device, passages: Passages, queries: np.ndarray, seed: int, world: World
) -> Compute:
    """Exact search, or an approximate index for corpora above `ann_above`, whose recall is measured and told."""
    if config.ann_above is None or len(passages) <= config.ann_above:
        return Compute(device, config.mining_batch_size, config.corpus_chunk_size, world)
    index = recall = None
    if world.leads:
        index = ApproximateIndex(passages, config.corpus_chunk_size, seed)
        recall = index.recall(queries, passages, _RECALL_AT, config.corpus_chunk_size, seed)
        log.info(f"approximate search finds {recall:.1%} of the exact {_RECALL_AT} nearest passages")
    return Compute(device, config.mining_batch_size, config.corpus_chunk_size, world, True, index, recall)

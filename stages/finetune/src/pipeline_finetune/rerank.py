"""Training of cross-encoders: every pair of a query and one of its passages gets a score, lists are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.retrieval.batching import token_batches
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline_finetune.backward import in_order
from pipeline_finetune.consolidated import save_consolidated
from pipeline_finetune.data import PairTable, TrainingData
from pipeline_finetune.distributed import TrainingWorld
from pipeline_finetune.steps import Part, StepResult, WatchedLoss, run_parts
from pipeline_finetune.strategy import Compute, in_local_batches, own_rows, rows_with_negatives
from pipeline_finetune.validation import ranking_metrics


class RerankTraining:
    """Training of a `CrossEncoder` on lists: a query's positive first, then its negatives."""

    def __init__(
        self,
        encoder: CrossEncoder,
        data: TrainingData,
        *,
        loss: WatchedLoss,
        temperature: float,
        compute: Compute,
        world: TrainingWorld,
    ) -> None:
        assert data.train_pairs is not None
        self.model, self.data, self.pairs = encoder, data, data.train_pairs
        self.device = encoder.device
        self.loss, self.temperature = loss, temperature
        self.compute, self.world = compute, world

    def names(self, rows: np.ndarray) -> list[str]:
        return [self.data.train.question_ids[row] for row in rows]

    def step(self, rows: np.ndarray) -> StepResult:
        mine, share = own_rows(rows, self.world)
        items = _items(self.pairs, mine)
        fits = int(self.pairs.tokens.lengths[items].sum()) <= self.compute.held_tokens
        parts = [(mine, share)] if fits else in_local_batches(mine, share, self.compute.local_batch)
        return run_parts(
            (self._part(part, weight) for part, weight in parts),
            self.model.body,
            self.loss,
            held_tokens=self.compute.held_tokens,
            world_size=self.world.size,
            device=self.device,
        )

    def _part(self, rows: np.ndarray, share: float) -> Part:
        items = _items(self.pairs, rows)
        lengths = self.pairs.tokens.lengths[items].tolist()
        candidates = torch.as_tensor(self._present(self.pairs, rows), device=self.device)
        positive = torch.zeros(len(rows), dtype=torch.long, device=self.device)
        teacher = None
        if self.loss.needs_teacher:
            assert self.data.train.teacher is not None
            teacher = torch.as_tensor(np.array(self.data.train.teacher[rows]), device=self.device)

        def loss_of(outputs: torch.Tensor) -> torch.Tensor:
            scores = outputs.new_zeros(candidates.shape).masked_scatter(candidates, outputs)
            return self.loss(scores, positive, candidates, teacher)

        return Part(
            lengths,
            token_batches(lengths, self.compute.micro_tokens),
            lambda chosen: self._score(self.pairs, items[np.asarray(chosen)]),
            loss_of,
            share,
        )

    @staticmethod
    def _present(pairs: PairTable, rows: np.ndarray) -> np.ndarray:
        """bool [B, n_passages]: where the row has a passage. Its positive always is the first."""
        places = rows[:, None] * pairs.n_passages + np.arange(pairs.n_passages)
        return pairs.tokens.lengths[places] > 0

    def _score(self, pairs: PairTable, items: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Scores of pairs: fp32 [n]."""
        with torch.autocast(self.device.type, self.compute.dtype, enabled=self.compute.dtype != torch.float32):
            tokens = [pairs.tokens[item] for item in items]
            return self.model(*self.model.collate(tokens, pairs.starts[items], self.compute.pad_to_multiple_of)).float()

    @torch.inference_mode()
    def validate(self) -> dict[str, float] | None:
        """Rank each validation row's positive among its own negatives."""
        pairs, table = self.data.val_pairs, self.data.val
        rows = rows_with_negatives(table) if table else np.empty(0, np.int64)
        if pairs is None or not len(rows):
            return None
        self.model.eval()
        items = _items(pairs, rows)
        batches = token_batches(pairs.tokens.lengths[items].tolist(), self.compute.micro_tokens)
        scored = in_order([self._score(pairs, items[np.asarray(batch)]) for batch in batches], batches)
        self.model.train()
        present = torch.as_tensor(self._present(pairs, rows), device=self.device)
        scores = scored.new_full(present.shape, -torch.inf).masked_scatter(present, scored)
        return ranking_metrics(scores, self.temperature)

    def save(self, folder: Path) -> Path:
        return save_consolidated(self.model, folder)


def _items(pairs: PairTable, rows: np.ndarray) -> np.ndarray:
    """Numbers of the rows' pairs, row after row, missing ones left out."""
    places = (rows[:, None] * pairs.n_passages + np.arange(pairs.n_passages)).ravel()
    return places[pairs.tokens.lengths[places] > 0]

"""Training of bi-encoders: distinct texts of a step through one encoder, contrastive loss, in-group validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.retrieval.batching import token_batches
from pipeline.retrieval.encoder import BiEncoder
from pipeline_finetune.backward import backward, in_order
from pipeline_finetune.consolidated import save_consolidated
from pipeline_finetune.data import MISSING, LoadedRows, RowTable, TrainingData, build_data
from pipeline_finetune.groups import Group, make_group
from pipeline_finetune.losses.infonce import InfoNCE
from pipeline_finetune.memory import activation_tokens, micro_batch_tokens
from pipeline_finetune.strategy import StepResult
from pipeline_finetune.throughput import training_flops
from pipeline_finetune.validation import ranking_metrics

_ROWS = 1024


@dataclass(frozen=True)
class Limits:
    """How a step is cut: tokens at once, tokens whose activations are held, rows at a time when they do not fit."""

    micro_batch_tokens: int | None = None
    activation_tokens: int | None = None
    local_batch: int = 4


class EmbedTraining:
    """Contrastive training of a `BiEncoder`. Weights stay in fp32; the forward pass computes in `dtype`."""

    def __init__(
        self,
        encoder: BiEncoder,
        data: TrainingData,
        *,
        temperature: float,
        in_batch_negatives: bool,
        dtype: torch.dtype,
        limits: Limits,
    ) -> None:
        self.model, self.data, self.dtype = encoder, data, dtype
        self.device = encoder.device
        self.in_batch_negatives = in_batch_negatives
        self.loss = InfoNCE(temperature)
        self.local_batch = limits.local_batch
        self.micro_tokens = micro_batch_tokens(limits.micro_batch_tokens, self.device)
        longest = max(encoder.contract.query_max_length, encoder.contract.passage_max_length)
        self.held_tokens = activation_tokens(
            limits.activation_tokens, encoder.model.config, longest, dtype, self.device
        )

    @classmethod
    def prepare(
        cls, encoder: BiEncoder, train: LoadedRows, val: LoadedRows | None, *, n_passages: int, **how: object
    ) -> EmbedTraining:
        """Tokenise the rows' texts for `encoder` under its contract. `how` goes to the constructor."""
        data = build_data(
            train,
            val,
            n_passages=n_passages,
            format_query=encoder.contract.format_query,
            format_passage=encoder.contract.format_passage,
            tokenize_queries=lambda texts: encoder.tokenize(texts, "query"),
            tokenize_passages=lambda texts: encoder.tokenize(texts, "passage"),
        )
        return cls(encoder, data, **how)  # type: ignore[arg-type]

    def names(self, rows: np.ndarray) -> list[str]:
        return [self.data.train.question_ids[row] for row in rows]

    def step(self, rows: np.ndarray) -> StepResult:
        results = [self._step(group, share=len(group.rows) / len(rows)) for group in self._groups(rows)]
        return StepResult(
            loss=sum(item.loss for item in results),
            tokens=sum(item.tokens for item in results),
            padded_tokens=sum(item.padded_tokens for item in results),
            flops=sum(item.flops for item in results),
        )

    def _groups(self, rows: np.ndarray) -> list[Group]:
        """The whole step if it fits in memory or its rows compete with each other; else local batches one by one."""
        table = self.data.train
        whole = make_group(table, rows, in_batch_negatives=self.in_batch_negatives)
        if self.in_batch_negatives or sum(self._lengths(table, rows, whole.passages)) <= self.held_tokens:
            return [whole]
        parts = [rows[start : start + self.local_batch] for start in range(0, len(rows), self.local_batch)]
        return [make_group(table, part, in_batch_negatives=False) for part in parts]

    def _step(self, group: Group, share: float) -> StepResult:
        """Gradients of a group that is `share` of its step."""
        table, rows, passages = self.data.train, group.rows, group.passages
        lengths = self._lengths(table, rows, passages)
        batches = token_batches(lengths, self.micro_tokens)
        n_queries = len(rows)
        positive = torch.as_tensor(group.positive, device=self.device)
        candidates = torch.as_tensor(group.candidates, device=self.device)

        def loss_of(vectors: torch.Tensor) -> torch.Tensor:
            return share * self.loss(vectors[:n_queries], vectors[n_queries:], positive, candidates)

        loss = backward(
            lambda items: self._encode(table, rows, passages, items),
            batches,
            loss_of,
            hold=sum(lengths) <= self.held_tokens,
            device=self.device,
        )
        return StepResult(
            loss=float(loss),
            tokens=sum(lengths),
            padded_tokens=sum(len(batch) * lengths[batch[0]] for batch in batches),
            flops=training_flops(self.model, lengths),
        )

    def _lengths(self, table: RowTable, rows: np.ndarray, passages: np.ndarray) -> list[int]:
        """Tokens of each text: the rows' queries, then the passages."""
        return [*table.queries.lengths[rows].tolist(), *self.data.passages.lengths[passages].tolist()]

    def _encode(self, table: RowTable, rows: np.ndarray, passages: np.ndarray, items: Sequence[int]) -> torch.Tensor:
        """Vectors of some of the texts (numbered as in `_lengths`): fp32 [len(items), D]."""
        first = len(rows)
        tokens = [
            table.queries[rows[item]] if item < first else self.data.passages[passages[item - first]] for item in items
        ]
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.model(*self.model.collate(tokens)).float()

    def validate(self) -> dict[str, float] | None:
        """Rank each validation row's positive among its own negatives; rows without negatives say nothing."""
        table = self.data.val
        rows = np.flatnonzero((table.negatives != MISSING).any(axis=1)) if table else np.empty(0, np.int64)
        if table is None or not len(rows):
            return None
        named = np.concatenate([table.positive[rows, None], table.negatives[rows]], axis=1)
        passages = np.unique(named[named != MISSING])
        self.model.eval()
        vectors = self._embed(table, rows, passages)
        self.model.train()
        columns = torch.as_tensor(np.searchsorted(passages, named).clip(max=len(passages) - 1))
        missing = torch.as_tensor(named == MISSING)
        queries, found = vectors[: len(rows)], vectors[len(rows) :]
        scores = torch.cat(
            [
                (found[columns[start : start + _ROWS]] @ queries[start : start + _ROWS, :, None]).squeeze(-1)
                for start in range(0, len(rows), _ROWS)
            ]
        )
        return ranking_metrics(scores.masked_fill(missing, -torch.inf), self.loss.temperature)

    @torch.no_grad()
    def _embed(self, table: RowTable, rows: np.ndarray, passages: np.ndarray) -> torch.Tensor:
        """Vectors of rows' queries, then of passages, on the CPU."""
        batches = token_batches(self._lengths(table, rows, passages), self.micro_tokens)
        parts = [self._encode(table, rows, passages, batch).cpu() for batch in batches]
        return in_order(parts, batches)

    def save(self, folder: Path) -> Path:
        return save_consolidated(self.model, folder)


def set_dropout(model: nn.Module, share: float | None) -> None:
    """Replace the model's own dropout; None keeps it. Only training is concerned: the saved configuration stays."""
    if share is None:
        return
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = share

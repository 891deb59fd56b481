"""Training of bi-encoders: distinct texts of a step through one encoder, contrastive loss, validation by search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.retrieval.batching import token_batches
from pipeline.retrieval.encoder import BiEncoder
from pipeline_finetune.backward import in_order
from pipeline_finetune.consolidated import save_consolidated
from pipeline_finetune.data import MISSING, RowTable, TrainingData
from pipeline_finetune.distributed import TrainingWorld
from pipeline_finetune.groups import Group, make_group, merge_ranks
from pipeline_finetune.losses.matryoshka import Matryoshka
from pipeline_finetune.losses.vectors import VectorLoss
from pipeline_finetune.steps import Part, StepResult, WatchedLoss, run_parts
from pipeline_finetune.strategy import Compute, in_local_batches, own_rows, rows_with_negatives
from pipeline_finetune.tokens import TokenTable
from pipeline_finetune.validation import ndcg_at_10, ranking_metrics

_ROWS = 256


@dataclass(frozen=True)
class Texts:
    """The distinct texts of some rows, numbered: the rows' queries first, then the passages."""

    queries: TokenTable
    passages: TokenTable
    rows: np.ndarray
    numbers: np.ndarray

    @property
    def lengths(self) -> list[int]:
        return [*self.queries.lengths[self.rows].tolist(), *self.passages.lengths[self.numbers].tolist()]

    def tokens(self, item: int) -> np.ndarray:
        first = len(self.rows)
        return self.queries[self.rows[item]] if item < first else self.passages[self.numbers[item - first]]

    def batches(self, lengths: Sequence[int], max_tokens: int, *, apart: bool) -> list[list[int]]:
        """Items in batches of similar length; queries and passages `apart` where two encoders read them."""
        if not apart:
            return token_batches(lengths, max_tokens)
        first = len(self.rows)
        passages = token_batches(lengths[first:], max_tokens)
        shifted = [[first + item for item in batch] for batch in passages]
        return token_batches(lengths[:first], max_tokens) + shifted


class EmbedTraining:
    """Contrastive training of a `BiEncoder`.

    Args:
        loss: over vectors; `watched` is the innermost loss in it, which sees the scores.
        in_batch_negatives: passages of the other rows of a step compete too; with `cross_rank` also those that other
            processes encode.
    """

    def __init__(
        self,
        encoder: BiEncoder,
        data: TrainingData,
        *,
        loss: VectorLoss | Matryoshka,
        watched: WatchedLoss,
        in_batch_negatives: bool,
        cross_rank: bool,
        compute: Compute,
        world: TrainingWorld,
    ) -> None:
        assert data.passages is not None
        self.model, self.data, self.passages = encoder, data, data.passages
        self.device = encoder.device
        self.loss, self.watched = loss, watched
        self.in_batch_negatives, self.cross_rank = in_batch_negatives, cross_rank
        self.compute, self.world = compute, world
        self.per_token = encoder.contract.pooling == "colbert"
        self.similarity = loss.inner.similarity if isinstance(loss, Matryoshka) else loss.similarity

    def names(self, rows: np.ndarray) -> list[str]:
        return [self.data.train.question_ids[row] for row in rows]

    def step(self, rows: np.ndarray) -> StepResult:
        mine, share = own_rows(rows, self.world)
        parts = [(mine, share)]
        if not self.in_batch_negatives:
            whole = self._texts(self.data.train, mine)
            if sum(whole.lengths) > self.compute.held_tokens:
                parts = in_local_batches(mine, share, self.compute.local_batch)
        return run_parts(
            (self._part(part, weight) for part, weight in parts),
            self.model.model,
            self.watched,
            held_tokens=self.compute.held_tokens,
            world_size=self.world.size,
            device=self.device,
        )

    def _part(self, rows: np.ndarray, share: float) -> Part:
        table = self.data.train
        group = make_group(table, rows, in_batch_negatives=self.in_batch_negatives)
        texts = Texts(table.queries, self.passages, rows, group.passages)  # type: ignore[arg-type]
        lengths = texts.lengths
        if self.cross_rank:
            numbers = self.world.gather(torch.as_tensor(group.passages, device=self.device))
            group = merge_ranks(table, rows, [part.cpu().numpy() for part in numbers])
        columns = self._on_device(group)

        def loss_of(vectors: torch.Tensor) -> torch.Tensor:
            queries, passages = vectors[: len(rows)], vectors[len(rows) :]
            if self.cross_rank:
                passages = torch.cat(self.world.gather(passages))
            return self.loss(queries, passages, **columns)

        return Part(
            lengths,
            texts.batches(lengths, self.compute.micro_tokens, apart=self.model.query_model is not None),
            lambda items: self._encode(texts, items, max(lengths)),
            loss_of,
            share,
        )

    def _texts(self, table: RowTable, rows: np.ndarray) -> Texts:
        named = np.unique(np.concatenate([table.positive[rows], table.negatives[rows].ravel()]))
        return Texts(table.queries, self.passages, rows, named[named != MISSING])  # type: ignore[arg-type]

    def _on_device(self, group: Group) -> dict[str, torch.Tensor | None]:
        arrays = {"positive": group.positive, "candidates": group.candidates, "own": group.own}
        if self.watched.needs_teacher:
            arrays["teacher"] = group.teacher
        return {name: None if value is None else torch.as_tensor(value, device=self.device)
                for name, value in arrays.items()}  # fmt: skip

    def _encode(self, texts: Texts, items: Sequence[int], width: int) -> torch.Tensor:
        """Vectors of some of the texts: fp32 [n, D], or [n, width, D] with a vector for each token."""
        kind = "query" if items[0] < len(texts.rows) else "passage"  # of one kind wherever it matters
        with torch.autocast(self.device.type, self.compute.dtype, enabled=self.compute.dtype != torch.float32):
            ids, mask = self.model.collate([texts.tokens(item) for item in items], self.compute.pad_to_multiple_of)
            vectors = self.model(ids, mask, kind).float()
        if not self.per_token:
            return vectors
        return nn.functional.pad(vectors, (0, 0, 0, max(0, width - vectors.shape[1])))[:, :width]

    def validate(self) -> dict[str, float] | None:
        """Rank each validation row's positive among its own negatives, and search the validation corpus with it."""
        table = self.data.val
        rows = rows_with_negatives(table) if table else np.empty(0, np.int64)
        if table is None or not len(rows):
            return None
        self.model.eval()
        scores = self._own_scores(table, rows)
        values = ranking_metrics(scores, self.model.contract.temperature or 1.0)
        if self.data.val_corpus is not None and not self.per_token:
            values["val_ndcg10"] = self._search_quality(table)
        self.model.train()
        return values

    def _own_scores(self, table: RowTable, rows: np.ndarray) -> torch.Tensor:
        """Scores of each row's positive and negatives, fp32 [n, 1 + k]; -inf where there are fewer."""
        scores = torch.full((len(rows), 1 + table.negatives.shape[1]), -torch.inf, device=self.device)
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            group = make_group(table, part, in_batch_negatives=False)
            vectors = self._embed(Texts(table.queries, self.passages, part, group.passages))  # type: ignore[arg-type]
            every = self.similarity(vectors[: len(part)], vectors[len(part) :])
            named = np.concatenate([table.positive[part, None], table.negatives[part]], axis=1)
            row, place = np.nonzero(named != MISSING)
            columns = np.searchsorted(group.passages, named[row, place])
            scores[torch.as_tensor(row + start), torch.as_tensor(place)] = every[
                torch.as_tensor(row), torch.as_tensor(columns)
            ]
        return scores

    def _search_quality(self, table: RowTable) -> float:
        """nDCG@10 of searching the validation corpus with every validation question."""
        corpus, relevant = self.data.val_corpus, self.data.val_relevant
        assert corpus is not None and relevant is not None
        rows = np.arange(len(table))
        vectors = self._embed(Texts(table.queries, corpus, rows, np.arange(len(corpus))))  # type: ignore[arg-type]
        best = [
            self.similarity(vectors[start : start + _ROWS][: len(rows) - start], vectors[len(rows) :])
            .topk(min(10, len(corpus)))
            .indices
            for start in range(0, len(rows), _ROWS)
        ]
        return ndcg_at_10(torch.cat(best).cpu().numpy(), relevant)

    @torch.inference_mode()
    def _embed(self, texts: Texts) -> torch.Tensor:
        lengths = texts.lengths
        batches = texts.batches(lengths, self.compute.micro_tokens, apart=self.model.query_model is not None)
        return in_order([self._encode(texts, batch, max(lengths)) for batch in batches], batches)

    def save(self, folder: Path) -> Path:
        return save_consolidated(self.model, folder)

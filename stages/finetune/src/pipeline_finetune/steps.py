"""One optimizer step of any family: parts of items through the model, their losses, their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import nn

from pipeline_finetune.backward import Encode, LossOf, backward
from pipeline_finetune.health import HEALTH, score_health
from pipeline_finetune.losses.base import Loss
from pipeline_finetune.throughput import training_flops


@dataclass(frozen=True)
class StepResult:
    """What one step took and gave, on this process.

    Attributes:
        loss: this process's share of the mean over the step's rows: shares of all processes add up to it.
        tokens: real tokens read. padded_tokens: tokens computed, padding included.
        flops: multiplications and additions of forward and backward over the real tokens, each counted as one.
        health: what `score_health` says, by name; empty where the process had no rows.
    """

    loss: float
    tokens: int
    padded_tokens: int
    flops: float
    health: dict[str, float]


@dataclass(frozen=True)
class Part:
    """Items (texts, or pairs of texts) whose outputs meet in one loss.

    Attributes:
        lengths: tokens of each item. batches: item indices that go through the model together.
        encode, loss_of: as `backward` takes them; the loss is the mean over the part's rows.
        share: the part's rows as a share of the rows of the whole step, over all processes.
    """

    lengths: Sequence[int]
    batches: Sequence[Sequence[int]]
    encode: Encode
    loss_of: LossOf
    share: float


class WatchedLoss(nn.Module):
    """A loss that notes the health of the scores it is given: the first of each part, which are the full-width ones."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss, self.needs_teacher = loss, loss.needs_teacher
        self.seen: torch.Tensor | None = None

    def forward(
        self,
        scores: torch.Tensor,
        positive: torch.Tensor,
        candidates: torch.Tensor,
        teacher: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if self.seen is None:
            self.seen = score_health(scores.detach(), positive, candidates)
        return self.loss(scores, positive, candidates, teacher)

    def take(self) -> torch.Tensor:
        """The health since the last call, fp32 [4]."""
        seen, self.seen = self.seen, None
        assert seen is not None
        return seen


def run_parts(
    parts: Iterable[Part], body: nn.Module, watched: WatchedLoss, *, held_tokens: int, world_size: int,
    device: torch.device,
) -> StepResult:  # fmt: skip
    """Add the gradients of all parts. Numbers come to the host once, at the end.

    Gradients are averaged over the processes afterwards, so each process scales its share by their number.
    """
    losses, healths, shares = [], [], []
    tokens = padded = 0
    flops = 0.0
    for part in parts:
        total = sum(part.lengths)
        loss = backward(
            part.encode,
            part.batches,
            lambda outputs, part=part: part.share * world_size * part.loss_of(outputs),
            held=_held(part, held_tokens),
            device=device,
        )
        losses.append(loss / world_size)
        healths.append(watched.take())
        shares.append(part.share)
        tokens += total
        padded += sum(len(batch) * part.lengths[batch[0]] for batch in part.batches)
        flops += training_flops(body, part.lengths)
    weights = torch.tensor(shares, device=device)
    mean = (torch.stack(healths) * weights[:, None]).sum(0) / weights.sum()
    numbers = torch.cat([torch.stack(losses).sum()[None], mean]).tolist()
    return StepResult(numbers[0], tokens, padded, flops, dict(zip(HEALTH, numbers[1:], strict=True)))


def _held(part: Part, tokens: int) -> int:
    """How many of the part's batches, from the first, have at most `tokens` computed tokens together."""
    computed = accumulate(len(batch) * part.lengths[batch[0]] for batch in part.batches)
    return sum(total <= tokens for total in computed)

"""Loss and gradients of one step over many sub-batches, with activations held (direct) or computed twice (cached)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pipeline_finetune.rng import random_state, restore_random_state

Encode = Callable[[Sequence[int]], torch.Tensor]
"""Item indices -> one output row per item, [len(indices), width]."""
LossOf = Callable[[torch.Tensor], torch.Tensor]
"""Outputs of all items in item order, [n, width] -> scalar loss."""


def backward(
    encode: Encode, batches: Sequence[Sequence[int]], loss_of: LossOf, *, hold: bool, device: torch.device
) -> torch.Tensor:
    """Add the gradients of one step to the parameters and return the loss (detached scalar).

    Both ways give the same gradients. `hold` keeps the activations of every sub-batch: each text goes through the
    model once forward and once back. Without it a step of any size fits, at the price of one more forward pass:
    first all outputs without a graph, then the loss and its gradient at the outputs, then sub-batch by sub-batch
    forward and back (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021,
    https://arxiv.org/abs/2101.06983). Dropout draws the same masks both times.

    Args:
        batches: item indices; together they hold every item exactly once.
    """
    if hold or len(batches) == 1:
        loss = loss_of(in_order([encode(batch) for batch in batches], batches))
        loss.backward()
        return loss.detach()
    states, parts = [], []
    with torch.no_grad():
        for batch in batches:
            states.append(random_state(device))
            parts.append(encode(batch))
    outputs = in_order(parts, batches).requires_grad_()
    loss = loss_of(outputs)
    loss.backward()
    gradient = outputs.grad
    assert gradient is not None
    for batch, state in zip(batches, states, strict=True):
        restore_random_state(state, device)
        encode(batch).backward(gradient[torch.as_tensor(batch, device=device)])
    return loss.detach()


def in_order(parts: Sequence[torch.Tensor], batches: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of sub-batches put back in item order."""
    joined = torch.cat(list(parts))
    order = torch.as_tensor([index for batch in batches for index in batch], device=joined.device)
    return joined[order.argsort()]

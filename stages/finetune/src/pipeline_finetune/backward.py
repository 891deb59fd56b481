"""Loss and gradients of one step over many sub-batches, whose activations are held or computed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pipeline_finetune.rng import random_state, restore_random_state

Encode = Callable[[Sequence[int]], torch.Tensor]
"""Item indices -> one output row per item, [len(indices), width]."""
LossOf = Callable[[torch.Tensor], torch.Tensor]
"""Outputs of all items in item order, [n, width] -> scalar loss."""


def backward(
    encode: Encode, batches: Sequence[Sequence[int]], loss_of: LossOf, *, held: int, device: torch.device
) -> torch.Tensor:
    """Add the gradients of one step to the parameters and return the loss (detached scalar).

    The activations of the first `held` sub-batches are kept; each of their texts goes through the model once forward
    and once back. The others are computed twice, so that a step of any size fits: once for their outputs alone, and
    again, sub-batch by sub-batch, when the loss has said what the gradient at those outputs is (Gao et al., "Scaling
    Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021, https://arxiv.org/abs/2101.06983). The
    gradients are the same whatever is held; dropout draws the same masks both times.

    Args:
        batches: item indices; together they hold every item exactly once.
    """
    if held >= len(batches) or len(batches) == 1:
        loss = loss_of(in_order([encode(batch) for batch in batches], batches))
        loss.backward()
        return loss.detach()
    parts = [encode(batch) for batch in batches[:held]]
    later, states = batches[held:], []
    with torch.no_grad():
        for batch in later:
            states.append(random_state(device))
            parts.append(encode(batch))
    after = random_state(device)  # what comes next draws the same numbers whatever is held
    outputs = in_order([part.detach() for part in parts], batches).requires_grad_()
    loss = loss_of(outputs)
    loss.backward()
    gradient = outputs.grad
    assert gradient is not None
    at = [gradient[torch.as_tensor(batch, device=device)] for batch in batches]
    if held:
        torch.autograd.backward(parts[:held], at[:held])
    del parts, outputs
    for batch, state, given in zip(later, states, at[held:], strict=True):
        restore_random_state(state, device)
        encode(batch).backward(given)
    restore_random_state(after, device)
    return loss.detach()


def in_order(parts: Sequence[torch.Tensor], batches: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of sub-batches put back in item order."""
    joined = torch.cat(list(parts))
    order = torch.as_tensor([index for batch in batches for index in batch], device=joined.device)
    return joined[order.argsort()]

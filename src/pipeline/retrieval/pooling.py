"""From token vectors to one vector per text. Correct for left and right padding."""

from __future__ import annotations

import torch


def pool(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """Pool `hidden` [batch, length, width] under `mask` [batch, length] (1 = token) to fp32 [batch, width].

    avg: mean over tokens. cls: the first token. last: the last token.
    """
    if mode == "avg":
        # A batched product reads `hidden` once in its own type; summing a masked copy would write it out again.
        weights = mask.to(hidden.dtype).unsqueeze(1)
        total = torch.bmm(weights, hidden).squeeze(1).float()
        return total / mask.sum(1, keepdim=True).clamp(min=1).float()
    if mode == "cls":
        position = mask.long().argmax(1)
    elif mode == "last":
        position = mask.shape[1] - 1 - mask.long().flip(1).argmax(1)
    else:
        raise ValueError(f"unknown pooling {mode!r}")
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), position].float()

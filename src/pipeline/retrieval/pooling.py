"""From token vectors to one vector per text, or to one per token. Correct for left and right padding."""

from __future__ import annotations

import torch
from torch import nn


def pool(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """Pool `hidden` [batch, length, width] under `mask` [batch, length] (1 = token) to fp32 [batch, width].

    avg: mean over tokens. weighted_avg: mean in which the first token weighs 1, the second 2, and so on; padding does
    not count (SGPT, https://arxiv.org/abs/2202.08904; `weightedmean` of sentence-transformers). cls: the first token.
    last: the last token.

    Raises:
        ValueError: another mode.
    """
    if mode == "avg":
        # A batched product reads `hidden` once in its own type; summing a masked copy would write it out again.
        weights = mask.to(hidden.dtype).unsqueeze(1)
        total = torch.bmm(weights, hidden).squeeze(1).float()
        return total / mask.sum(1, keepdim=True).clamp(min=1).float()
    if mode == "weighted_avg":
        # Positions beyond 256 have no exact bf16 value: the product must be taken in fp32.
        weights = mask.long().cumsum(1).mul(mask).float()
        with torch.autocast(hidden.device.type, enabled=False):
            total = torch.bmm(weights.unsqueeze(1), hidden.float()).squeeze(1)
        return total / weights.sum(1, keepdim=True).clamp(min=1)
    if mode == "cls":
        position = mask.long().argmax(1)
    elif mode == "last":
        position = mask.shape[1] - 1 - mask.long().flip(1).argmax(1)
    else:
        raise ValueError(f"unknown pooling {mode!r}")
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), position].float()


def token_vectors(hidden: torch.Tensor, mask: torch.Tensor, normalize: bool = True) -> torch.Tensor:
    """Every token's vector for late interaction: fp32 [batch, length, width], zero where `mask` [batch, length] is 0.

    A zero vector has the product 0 with everything; who takes a maximum over tokens must still leave padding out.
    (ColBERT, https://arxiv.org/abs/2004.12832.)
    """
    vectors = hidden.float()
    if normalize:
        vectors = nn.functional.normalize(vectors, dim=-1)
    return vectors * mask.unsqueeze(-1)

"""How fast training was, against what the machine could do at most."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn

from pipeline.retrieval.hardware import use_fast_fp32

_SIZE, _ROUNDS = 2048, 3


def training_flops(body: nn.Module, lengths: Sequence[int]) -> float:
    """Floating-point operations of forward and backward of a transformer over inputs of these token lengths.

    Padding is not counted: 6 per weight of a linear layer and token, and 12 x width per layer and pair of tokens for
    attention.
    """
    weights = sum(
        module.weight.numel()
        for name, module in body.named_modules()
        if isinstance(module, nn.Linear) and "pooler" not in name
    )
    config = body.config
    per_pair = 12 * config.num_hidden_layers * config.hidden_size
    return float(6 * weights * sum(lengths) + per_pair * sum(length * length for length in lengths))


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product in `dtype`: the limit no step can pass (the best of a few)."""
    use_fast_fp32()
    left, right = (torch.randn(_SIZE, _SIZE, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_ROUNDS):
        _wait(device)
        start = time.perf_counter()
        left @ right
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

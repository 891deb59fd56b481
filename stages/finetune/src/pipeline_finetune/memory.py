"""How much of a step fits: sub-batch sizes for the caches of the machine, activations for its memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

CPU_MICRO_BATCH_TOKENS = 2048
GPU_MICRO_BATCH_TOKENS = 16384
_SHARE_OF_FREE_MEMORY = 0.5


def micro_batch_tokens(wanted: int | None, device: torch.device) -> int:
    """Tokens sent through the model at once. On a CPU small sub-batches stay in the cache and are faster."""
    return wanted or (GPU_MICRO_BATCH_TOKENS if device.type == "cuda" else CPU_MICRO_BATCH_TOKENS)


def activation_tokens(
    wanted: int | None, model_config: Any, longest: int, dtype: torch.dtype, device: torch.device
) -> int:
    """Tokens whose activations may be held at once: what was asked for, or half of the free memory's worth."""
    if wanted:
        return wanted
    return int(_SHARE_OF_FREE_MEMORY * free_memory(device) / bytes_per_token(model_config, longest, dtype))


def bytes_per_token(model_config: Any, longest: int, dtype: torch.dtype) -> int:
    """Upper estimate of the activations one token of a text of `longest` tokens leaves behind for the backward pass.

    In each layer about 16 values per unit of width, 4 per unit of the feed-forward part and, where attention is not
    fused, 2 per head and token of the text (after Korthikanti et al., "Reducing Activation Recomputation in Large
    Transformer Models", 2022, section 4). Measured with MiniLM at 256 tokens: 77 % of this in bf16.
    """
    width = model_config.hidden_size
    inner = getattr(model_config, "intermediate_size", None) or 4 * width
    attention = 2 * model_config.num_attention_heads * longest
    return dtype.itemsize * model_config.num_hidden_layers * (16 * width + 4 * inner + attention)


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: assume that half of the machine is taken
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2

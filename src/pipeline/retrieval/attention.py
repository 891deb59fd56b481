"""Attention and dropout for CPUs: the plain formulas in the type of their inputs, with random numbers made cheaply.

torch's own choices are slow here: the fused kernel computes its backward pass in bf16 badly and cannot drop out, the
plain one is lifted to fp32 by autocast, and drawing dropout's mask one Bernoulli number at a time takes longer than all
matrix products of a layer together (34 of 40 ms for 8 texts of 256 tokens in MiniLM, two cores).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import nn

from pipeline.retrieval.hardware import use_fast_fp32

_PLAIN = "pipeline_plain"

_CACHED = 2**22
"""Bytes of scores that are computed at once: a part of the last cache of a small processor."""
_BLOCK = 2**16
"""Random numbers that one thread draws at a time."""
_BITS = {2: torch.int16, 4: torch.int32}


def plain_attention_is_faster(device: torch.device, dtype: torch.dtype) -> bool:
    """On a CPU in bf16, and in fp32 where oneDNN multiplies it: torch's fused kernel has MKL's products inside."""
    return device.type == "cpu" and (dtype == torch.bfloat16 or use_fast_fp32())


def use_plain_attention(model: Any) -> str:
    """Give a transformers model this attention, or its own plain one if it takes no other; returns which."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(_PLAIN, plain_attention)
    AttentionMaskInterface.register(_PLAIN, _mask)
    ours = getattr(model, "_supports_attention_backend", False)
    model.set_attn_implementation(_PLAIN if ours else "eager")
    return "plain" if ours else "eager"


def plain_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """softmax(q k' * scaling + mask) v, as transformers calls it.

    Args:
        query: [B, heads, L, d]. key, value: [B, key heads, L, d]; heads are a multiple of key heads.
        attention_mask: bool [B, 1, L or 1, L], True where a token is seen; None where all are.

    Returns:
        [B, L, heads, d] and None (weights are not kept).
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    share = dropout if module.training else 0.0
    with torch.autocast(query.device.type, enabled=False):  # softmax is exact enough inside: it adds up in fp32
        parts = [query * scale, key.to(query.dtype), value.to(query.dtype), attention_mask, position_bias]
        result = torch.cat([_attend(*chunk, share) for chunk in _in_cache(parts)]).transpose(1, 2)
    return result.contiguous(), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    bias: torch.Tensor | None,
    dropout: float,
) -> torch.Tensor:
    scores = query @ key.transpose(2, 3)
    if mask is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, lowest)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    return drop_out(torch.softmax(scores, -1), dropout) @ value


def _in_cache(parts: list[torch.Tensor | None]) -> Iterator[list[torch.Tensor | None]]:
    """Query, key, value, mask and bias of so many texts at once that their scores stay in a processor's cache.

    Without it the scores of a batch of 16 texts of 256 tokens go to memory and back four times, which takes as long as
    computing them. With gradients they are all kept anyhow, and one product is quicker than many.
    """
    batch, heads, length, _ = parts[0].shape
    held = heads * length * parts[1].shape[2] * parts[0].element_size()
    texts = batch if torch.is_grad_enabled() else min(batch, max(1, _CACHED // held))
    if texts == batch:
        yield parts
        return
    for start in range(0, batch, texts):
        yield [part if part is None or len(part) == 1 else part[start : start + texts] for part in parts]


def drop_out(values: torch.Tensor, share: float) -> torch.Tensor:
    """Zero a random `share` of the values and scale the others up, as `nn.functional.dropout` does.

    The share is met to 1 in 32,768 (bf16). Random bits come from torch's generator of the CPU.
    """
    if share <= 0:
        return values
    return values * _keep_mask(values, share)


def use_fast_dropout(model: nn.Module) -> None:
    """Give every dropout module of a model the cheaper random numbers."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = FastDropout


class FastDropout(nn.Dropout):
    """`nn.Dropout` by `drop_out`."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return drop_out(values, self.p if self.training else 0.0)


def _keep_mask(values: torch.Tensor, share: float) -> torch.Tensor:
    """0 with probability `share`, else 1 / (1 - share), in the type of `values`.

    Made by whole-number arithmetic on the bit patterns: where a number is below the limit, the sign bit of the
    difference, spread over all bits, lets the pattern of the scale through.
    """
    kind = _BITS[values.element_size()]
    top = torch.iinfo(kind).max
    per_draw = 8 // values.element_size()
    bits = _draws(-(-values.numel() // per_draw)).view(kind)[: values.numel()].bitwise_and_(top)
    kept = bits.sub_(round((1 - share) * top) + 1).bitwise_right_shift_(torch.iinfo(kind).bits - 1)
    scale = torch.tensor(1 / (1 - share), dtype=values.dtype).view(kind)
    return kept.bitwise_and_(scale).view(values.dtype).view(values.shape)


def _draws(count: int) -> torch.Tensor:
    """Random int64 numbers [count], a block a thread: torch draws on one thread, which is slower than what follows.

    Each block has a generator of its own, seeded by torch's, so that the numbers do not depend on the threads.
    """
    draws = torch.empty(count, dtype=torch.int64)
    seed = int(torch.randint(2**62, ()))

    def fill(start: int) -> None:
        draws[start : start + _BLOCK].random_(generator=torch.Generator().manual_seed(seed + start))

    if count <= _BLOCK:
        fill(0)
    else:
        list(_threads().map(fill, range(0, count, _BLOCK)))
    return draws


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(torch.get_num_threads(), "dropout")


def _mask(*arguments: Any, allow_is_causal_skip: bool = True, **more: Any) -> torch.Tensor | None:
    """A mask as for torch's fused attention, but written out where it is causal: our formula has no such flag."""
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*arguments, allow_is_causal_skip=False, **more)

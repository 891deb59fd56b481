"""Models in memory: how large they are, how much of a text they read, and how their memory is given back."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from pipeline.retrieval.attention import plain_attention_is_faster, use_plain_attention
from pipeline.retrieval.transformer import LoadOptions
from pipeline.retrieval.world import World
from pipeline_eval.crew import shared_out

Model = TypeVar("Model", bound=nn.Module)
_TOKENIZED_AT_ONCE = 4096


@dataclass(frozen=True)
class Compute:
    """Where and how models compute, and where vectors are kept.

    `chunk` is the number of passages (or pairs) that are held in memory at once; `world` the processes that share the
    work.
    """

    device: torch.device
    dtype: torch.dtype
    batch_tokens: int
    chunk: int
    cache: Path
    world: World = World()

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def suit(self, body: nn.Module, options: LoadOptions) -> None:
        """Give a transformer the attention that is fastest here, if none was chosen."""
        if plain_attention_is_faster(self.device, self.dtype) and not options.attn_implementation:
            use_plain_attention(body)


@contextmanager
def released(model: Model) -> Iterator[Model]:
    """The model, whose memory is given back at the end even while others still hold it."""
    device = next(model.parameters()).device
    try:
        yield model
    finally:
        model.to("meta")
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def weights_mb(model: nn.Module) -> float:
    """Size of the weights as they are computed with, in MB of 10**6 bytes."""
    return round(sum(item.numel() * item.element_size() for item in model.parameters()) / 1e6, 1)


def count_too_long(
    tokenizer: Any, texts: Callable[[np.ndarray], list[str]], count: int, limit: int, world: World | None = None
) -> int:
    """How many of `count` texts (given by their numbers, int64 [n]) have more than `limit` tokens, special ones too.

    A token takes at least one byte of the text, so that short texts need not be tokenised to know.
    """
    most_bytes = limit - tokenizer.num_special_tokens_to_add()

    def too_long(start: int) -> int:
        held = texts(np.arange(start, min(start + _TOKENIZED_AT_ONCE, count)))
        candidates = [text for text in held if len(text.encode()) > most_bytes]
        if not candidates:
            return 0
        tokens = tokenizer(candidates, verbose=False, return_attention_mask=False, return_token_type_ids=False)
        return sum(len(ids) > limit for ids in tokens["input_ids"])

    return sum(shared_out(list(range(0, count, _TOKENIZED_AT_ONCE)), world or World(), too_long))

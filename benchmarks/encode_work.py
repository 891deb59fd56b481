"""What a transformer computed while it encoded texts. Needs torch alone: both our process and the peer's use it."""

from __future__ import annotations

import torch


class EncodeWork:
    """Counts tokens, padded tokens and the operations of a forward pass over the real tokens.

    Operations: 2 per weight of a linear layer and token, and 4 x width per layer and pair of tokens for attention.
    """

    def __init__(self, body: torch.nn.Module, called: torch.nn.Module | None = None) -> None:
        """`called`: the module that is called instead of `body`, with a dict that holds `attention_mask`."""
        config = body.config
        linear = [
            module
            for name, module in body.named_modules()
            if isinstance(module, torch.nn.Linear) and "pooler" not in name
        ]
        self.per_token = 2 * sum(module.weight.numel() for module in linear)
        self.per_pair = 4 * config.num_hidden_layers * config.hidden_size
        self.reset()
        (called or body).register_forward_pre_hook(self._count, with_kwargs=True)

    def reset(self) -> None:
        self.tokens = self.padded = self.flops = 0.0

    def numbers(self) -> dict[str, float]:
        return {"tokens": self.tokens, "padding": 1 - self.tokens / self.padded, "flops": self.flops}

    def _count(self, _module: torch.nn.Module, arguments: tuple, named: dict) -> None:
        mask = (arguments[0] if arguments else named)["attention_mask"]
        lengths = mask.sum(1).double()
        self.tokens += lengths.sum().item()
        self.padded += mask.numel()
        self.flops += self.per_token * lengths.sum().item() + self.per_pair * (lengths**2).sum().item()

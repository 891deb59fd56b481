"""Decoders that read in both directions: no causal mask in any layer.

A language model's token sees only what stands before it; an encoder needs the whole text. transformers builds a
two-way mask when `config.is_causal` is False and hands that value on to the attention kernel, so that the saved
`config.json` alone keeps a model bidirectional wherever it is loaded (transformers >= 5.2). Windows of sliding-window
layers then reach to both sides.
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline.errors import PipelineError


def is_decoder(model: nn.Module) -> bool:
    """True if any attention layer of `model` is causal."""
    return any(getattr(module, "is_causal", False) is True for module in model.modules())


def make_bidirectional(model: nn.Module, name: str) -> None:
    """Remove the causal mask of every layer, for this process and for what is saved.

    Raises:
        PipelineError: the architecture stays causal (a later token does not reach an earlier one).
    """
    model.config.is_causal = False
    model.config.use_cache = False
    for module in model.modules():
        if getattr(module, "is_causal", False) is True:
            module.is_causal = False
    if not reads_ahead(model):
        raise PipelineError(
            f"{name}: its architecture ({model.config.model_type}) stays causal, so it cannot become an encoder",
            fix="take an encoder, or a Llama, Qwen, Mistral or Ministral model",
        )


@torch.no_grad()
def reads_ahead(model: nn.Module) -> bool:
    """True if another last token changes the first token's vector.

    FlashAttention cannot run on a CPU, where models are loaded: the plain kernel, built from the same mask, stands in.
    """
    kernel = model.config._attn_implementation
    training = model.training
    if "flash" in (kernel or ""):
        model.set_attn_implementation("sdpa")
    try:
        ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=next(model.parameters()).device)
        hidden = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    finally:
        model.train(training)
        if model.config._attn_implementation != kernel:
            model.set_attn_implementation(kernel)
    return not torch.equal(hidden[0, 0], hidden[1, 0])

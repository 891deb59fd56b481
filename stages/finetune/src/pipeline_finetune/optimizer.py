"""Optimizers by name, and their state as plain tensors."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

import torch
from torch import nn

from pipeline.errors import PipelineError

_PACKAGES = {
    "fused_adam": ("transformer_engine", 'pip install "transformer-engine[pytorch]" (Linux with an NVIDIA GPU)'),
    "flash_adamw": ("flashoptim", "pip install flashoptim (an NVIDIA GPU)"),
}


def pick_backend(wanted: str, device: torch.device) -> str:
    """`auto`: the first of TransformerEngine's FusedAdam, FlashAdamW and torch's AdamW that works on `device`.

    Raises:
        PipelineError: `wanted` needs a GPU or a package that is not there; the message says which.
    """
    if wanted == "auto":
        usable = [name for name in _PACKAGES if device.type == "cuda" and find_spec(_PACKAGES[name][0])]
        return usable[0] if usable else "adamw"
    if wanted in _PACKAGES:
        package, install = _PACKAGES[wanted]
        if device.type != "cuda":
            raise PipelineError(f"optimizer_backend={wanted} needs an NVIDIA GPU", fix="set optimizer_backend=auto")
        if find_spec(package) is None:
            raise PipelineError(
                f"optimizer_backend={wanted} needs the package {package}, which is not installed here",
                fix=f"{install}, or set optimizer_backend=auto",
            )
    return wanted


def make_optimizer(
    model: nn.Module, backend: str, *, learning_rate: float, weight_decay: float, master_weight_bits: int | None = 32
) -> torch.optim.Optimizer:
    """AdamW by `pick_backend`'s answer over the trainable parameters; matrices decay, norms and biases do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [item for item in trainable if item.ndim >= 2], "weight_decay": weight_decay},
        {"params": [item for item in trainable if item.ndim < 2], "weight_decay": 0.0},
    ]
    if backend == "fused_adam":
        from transformer_engine.pytorch.optimizers import FusedAdam

        return FusedAdam(groups, lr=learning_rate, adam_w_mode=True)
    if backend == "flash_adamw":
        from flashoptim import FlashAdamW

        return FlashAdamW(groups, lr=learning_rate, master_weight_bits=master_weight_bits)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, torch.Tensor]:
    """The optimizer's state: `<kind>:<parameter name>` -> tensor (for AdamW step, exp_avg, exp_avg_sq)."""
    return {
        f"{kind}:{name}": value
        for name, parameter in named
        for kind, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, nn.Parameter]], tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` took."""
    parameters = dict(named)
    for key, value in tensors.items():
        kind, name = key.split(":", 1)
        optimizer.state[parameters[name]][kind] = value.to(parameters[name].device)

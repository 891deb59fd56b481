"""What this machine can compute with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

from pipeline.errors import PipelineError


def pick_device(wanted: str = "auto") -> torch.device:
    """`auto` takes a GPU if there is one. Raises PipelineError if `cuda` is asked for and missing."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise PipelineError("device=cuda, but torch sees no GPU here", fix="set device=auto or device=cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """bf16 where the hardware multiplies it natively (so that it is faster), else fp32."""
    if precision == "fp32":
        return torch.float32
    if precision == "bf16":
        return torch.bfloat16
    return torch.bfloat16 if has_native_bf16(device) else torch.float32


def has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # oneDNN computes bf16 on any AVX-512 machine, but only these instructions make it faster than fp32.
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


@cache
def use_fast_fp32() -> bool:
    """Let oneDNN multiply fp32 matrices on the CPU where it is as exact as torch's own choice; True if it does now.

    torch gives fp32 products to MKL, which keeps to AVX2 on other makers' processors: 107 instead of 235 GFLOP/s on one
    Zen 5 core, forward and backward. It gives them to oneDNN only if told that bf16 inside would do. oneDNN then rounds
    where an instruction (AMX) makes that faster, and nowhere else; so it is tried, and taken back if it rounds.
    """
    setting = getattr(torch.backends.mkldnn, "matmul", None)
    if setting is None or not torch.backends.mkldnn.is_available():
        return False
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    if _is_exact(torch.matmul):
        return True
    setting.fp32_precision = before
    return False


def _is_exact(product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> bool:
    """Whether it multiplies fp32 matrices [512, 384] x [384, 384] and a batch of small ones to fp32's own rounding."""
    drawn = torch.Generator().manual_seed(0)
    pairs = [((512, 384), (384, 384)), ((8, 128, 32), (8, 32, 128))]
    for left, right in pairs:
        a, b = torch.randn(left, generator=drawn), torch.randn(right, generator=drawn)
        error = (product(a, b) - a.double() @ b.double()).abs().max()
        if error > 1e-5 * left[-1] ** 0.5:  # bf16 is off by some 1e-2
            return False
    return True


def encode_batch_tokens(wanted: int | None, device: torch.device) -> int:
    """Tokens of one batch: `wanted`, or what stays in a processor's cache, or what keeps a GPU busy."""
    return wanted or (16384 if device.type == "cuda" else 2048)

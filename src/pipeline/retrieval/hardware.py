"""What this machine can compute with."""

from __future__ import annotations

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


def encode_batch_tokens(wanted: int | None, device: torch.device) -> int:
    """Tokens of one batch: `wanted`, or what stays in a processor's cache, or what keeps a GPU busy."""
    return wanted or (16384 if device.type == "cuda" else 2048)

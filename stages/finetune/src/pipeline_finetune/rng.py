"""torch's random state. Every step seeds it anew, so that any process continues a run without stored state."""

from __future__ import annotations

import torch

State = dict[str, torch.Tensor]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Give step `step` of process `rank` its own random numbers (dropout), the same in every run."""
    torch.manual_seed(hash((seed, step, rank)) & 0x7FFF_FFFF_FFFF_FFFF)


def random_state(device: torch.device) -> State:
    """State of the generators that dropout on `device` draws from: uint8 tensors by name."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: State, device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)

"""torch's random state, the only one training uses: the data order is computed from the seed and the epoch."""

from __future__ import annotations

import torch

State = dict[str, torch.Tensor]


def random_state(device: torch.device) -> State:
    """State of the generators that dropout on `device` draws from: uint8 tensors by name."""
    state = {"rng.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["rng.cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: State, device: torch.device) -> None:
    torch.set_rng_state(state["rng.cpu"])
    if device.type == "cuda" and "rng.cuda" in state:
        torch.cuda.set_rng_state(state["rng.cuda"], device)

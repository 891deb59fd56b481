"""Token lists of different lengths as one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

Tokens = list[list[int]]
"""Token ids of each text, special tokens included, not padded."""


def padded(
    tokens: Sequence[Sequence[int]],
    pad_id: int,
    device: torch.device,
    multiple_of: int | None = None,
    limit: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (1 = token), padded on the right: both int64 [batch, length] on `device`.

    The length is that of the longest text, rounded up to a multiple of `multiple_of` but not beyond `limit`, which is
    what the model can read.
    """
    lengths = np.fromiter((len(item) for item in tokens), dtype=np.int64, count=len(tokens))
    longest = int(lengths.max())
    width = -(-longest // multiple_of) * multiple_of if multiple_of else longest
    width = max(longest, min(width, limit or width))
    real = np.arange(width) < lengths[:, None]
    ids = np.full(real.shape, pad_id, dtype=np.int64)
    ids[real] = np.concatenate(tokens, dtype=np.int64, casting="unsafe")  # an empty list would count as floats
    return on_device(ids, device), on_device(real.astype(np.int64), device)


def on_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """`values` as a tensor on `device`; towards a GPU the copy runs beside the computation."""
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

"""A score and the number of its passage in one integer, so that the best of many are found by one comparison.

Every pair of scores and numbers has its place in one total order: higher score first, then lower number. Ties need no
care, lists from different blocks or processes merge by taking the largest, and the result does not depend on how the
work was cut.
"""

from __future__ import annotations

import torch

NOTHING = torch.iinfo(torch.int64).min
"""Below the key of any score: an empty place."""
_LOW = 0xFFFFFFFF


def pack(scores: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Keys, int64. scores: fp32, finite. numbers: int64, 0 <= number < 2**32 - 1."""
    bits = (scores + 0.0).view(torch.int32)  # adding 0 turns -0 into 0: they are equal and must have one key
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << 32) | (_LOW - numbers)


def scores_of(keys: torch.Tensor) -> torch.Tensor:
    """fp32; -inf for `NOTHING`."""
    ordered = (keys >> 32).int()
    scores = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).view(torch.float32)
    return scores.masked_fill(keys == NOTHING, -torch.inf)


def numbers_of(keys: torch.Tensor) -> torch.Tensor:
    """int64; -1 for `NOTHING`."""
    return (_LOW - (keys & _LOW)).masked_fill(keys == NOTHING, -1)


def best_of(keys: torch.Tensor, k: int) -> torch.Tensor:
    """The `k` largest of each row, largest first: [Q, k]."""
    return keys.topk(k, dim=1).values


class Best:
    """The `k` best passages of each of `rows` questions so far."""

    def __init__(self, rows: int, k: int, device: torch.device | str) -> None:
        self.k = k
        self.keys = torch.full((rows, k), NOTHING, dtype=torch.int64, device=device)

    def bar(self, rows: slice) -> torch.Tensor:
        """fp32 [rows]: what a score must exceed or equal to come in; -inf while places are empty."""
        return scores_of(self.keys[rows, -1])

    def offer(self, first: int, rows: torch.Tensor, keys: torch.Tensor) -> None:
        """Take in candidates: `keys` [P] of the rows `first + rows` (int64 [P], any order)."""
        rows, order = rows.sort(stable=True)
        touched, counts = torch.unique_consecutive(rows, return_counts=True)
        if not len(touched):
            return
        starts = counts.cumsum(0) - counts
        place = torch.arange(len(rows), device=rows.device) - starts.repeat_interleave(counts)
        line = torch.arange(len(touched), device=rows.device).repeat_interleave(counts)
        wide = torch.full((len(touched), self.k + int(counts.max())), NOTHING, device=rows.device)
        wide[:, : self.k] = self.keys[first + touched]
        wide[line, self.k + place] = keys[order]
        self.keys[first + touched] = best_of(wide, self.k)

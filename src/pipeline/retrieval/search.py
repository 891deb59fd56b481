"""Exact nearest passages, block by block: bounded memory, no full score matrix, no host sync per element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Device = torch.device | str
Mask = Callable[[torch.Tensor, int], None]
"""`mask(scores, start)` sets to -inf, in place, what must not be found among the passages from `start` on."""


def top_k(
    queries: np.ndarray,
    passages: np.ndarray,
    k: int,
    *,
    passage_block: int = 50_000,
    query_block: int = 1024,
    device: Device = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` passages with the largest dot product for each query.

    Args:
        queries: fp32 [Q, D]. passages: fp32 [N, D] (may be memory-mapped; read block by block).

    Returns:
        scores fp32 [Q, k'] and indices int64 [Q, k'], best first, k' = min(k, N). Equal scores: lower index first,
        whatever the block sizes.
    """
    k = min(k, len(passages))
    all_scores = np.empty((len(queries), k), dtype=np.float32)
    all_indices = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), query_block):
        block = torch.as_tensor(queries[start : start + query_block], device=device)
        best, where = _scan(block, passages, k, passage_block, device)
        all_scores[start : start + query_block] = best.cpu().numpy()
        all_indices[start : start + query_block] = where.cpu().numpy()
    return all_scores, all_indices


@dataclass(frozen=True)
class Below:
    """What `top_k_below` found.

    Attributes:
        scores, indices: fp32 and int64 [Q, k'], best first, k' = min(k, N); -inf and -1 where nothing was left.
        above: int64 [Q], how many passages were left out because they score above the query's ceiling.
    """

    scores: np.ndarray
    indices: np.ndarray
    above: np.ndarray


def top_k_below(
    queries: np.ndarray,
    passages: np.ndarray,
    k: int,
    ceilings: np.ndarray,
    excluded: tuple[np.ndarray, np.ndarray],
    *,
    hidden: np.ndarray | None = None,
    passage_block: int = 50_000,
    query_block: int = 1024,
    device: Device = "cpu",
) -> Below:
    """`top_k` over the passages that score at most the query's ceiling and are not excluded for it.

    Args:
        ceilings: fp32 [Q]; +inf for no ceiling.
        excluded: (query index, passage index), int64 [M] each, in any order: pairs that must not be found. They do not
            count as `above`.
        hidden: int64 [H], ascending: passages that no query may find; they do not count either.
    """
    k = min(k, len(passages))
    found = Below(
        np.full((len(queries), k), -np.inf, np.float32),
        np.full((len(queries), k), -1, np.int64),
        np.zeros(len(queries), np.int64),
    )
    order = np.argsort(excluded[0], kind="stable")
    rows, columns = np.asarray(excluded[0])[order], np.asarray(excluded[1])[order]
    for start in range(0, len(queries), query_block):
        end = min(start + query_block, len(queries))
        first, last = np.searchsorted(rows, (start, end))
        pairs = (rows[first:last] - start, columns[first:last])
        mask = _BelowMask(ceilings[start:end], pairs, np.empty(0, np.int64) if hidden is None else hidden, device)
        block = torch.as_tensor(queries[start:end], device=device)
        best, where = _scan(block, passages, k, passage_block, device, mask)
        found.scores[start:end] = best.cpu().numpy()
        found.indices[start:end] = torch.where(best.isfinite(), where, -1).cpu().numpy()
        found.above[start:end] = mask.above.cpu().numpy()
    return found


class _BelowMask:
    """The `Mask` of one block of queries; counts in `above` what it hides for scoring too high."""

    def __init__(
        self, ceilings: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], hidden: np.ndarray, device: Device
    ) -> None:
        order = np.argsort(pairs[1], kind="stable")
        self.rows, self.columns, self.hidden, self.device = pairs[0][order], pairs[1][order], hidden, device
        self.ceilings = torch.as_tensor(ceilings, device=device).unsqueeze(1)
        self.above = torch.zeros(len(ceilings), dtype=torch.long, device=device)

    def __call__(self, scores: torch.Tensor, start: int) -> None:
        window = (start, start + scores.shape[1])
        first, last = np.searchsorted(self.columns, window)
        scores[self._tensor(self.rows[first:last]), self._tensor(self.columns[first:last] - start)] = -torch.inf
        first, last = np.searchsorted(self.hidden, window)
        scores.index_fill_(1, self._tensor(self.hidden[first:last] - start), -torch.inf)
        too_high = scores > self.ceilings
        self.above += too_high.sum(1)
        scores.masked_fill_(too_high, -torch.inf)

    def _tensor(self, indices: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(indices, device=self.device)


def _scan(
    queries: torch.Tensor, passages: np.ndarray, k: int, block: int, device: Device, mask: Mask | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    best = torch.empty((len(queries), 0), device=device)
    where = torch.empty((len(queries), 0), dtype=torch.long, device=device)
    for start in range(0, len(passages), block):
        # A block of a memory map is copied (torch takes no read-only memory), an array's own block is not.
        part = torch.as_tensor(np.require(passages[start : start + block], np.float32, ["C", "W"]), device=device)
        scores = queries @ part.T
        if mask:
            mask(scores, start)
        scores, indices = _largest(scores, min(k, len(part)))
        # What an earlier block kept stands first, so that the stable sort prefers the lower index.
        scores, order = torch.cat([best, scores], 1).sort(dim=1, descending=True, stable=True)
        where = torch.cat([where, indices + start], 1).gather(1, order[:, :k])
        best = scores[:, :k]
    return best, where


def _largest(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` largest of each row, best first, equal ones by index. `torch.topk` picks any of several equal ones."""
    values, indices = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if values.shape[1] > k:
        border = values[:, k - 1]
        tied = ((border == values[:, k]) & border.isfinite()).nonzero().squeeze(1)
        values, indices = values[:, :k], indices[:, :k]
        if len(tied):
            ordered, places = scores[tied].sort(dim=1, descending=True, stable=True)
            values, indices = values.clone(), indices.clone()
            values[tied], indices[tied] = ordered[:, :k], places[:, :k]
    indices, order = indices.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, indices.gather(1, order)

"""Exact nearest passages, block by block: bounded memory, no full score matrix, no host sync per element."""

from __future__ import annotations

import numpy as np
import torch


def top_k(
    queries: np.ndarray,
    passages: np.ndarray,
    k: int,
    *,
    passage_block: int = 50_000,
    query_block: int = 1024,
    device: torch.device | str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` passages with the largest dot product for each query.

    Args:
        queries: fp32 [Q, D]. passages: fp32 [N, D] (may be memory-mapped; read block by block).

    Returns:
        scores fp32 [Q, k'] and indices int64 [Q, k'], best first, k' = min(k, N). Equal scores: lower index first
        within what the blocks kept.
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


def _scan(
    queries: torch.Tensor, passages: np.ndarray, k: int, block: int, device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    best: torch.Tensor | None = None
    where: torch.Tensor | None = None
    for start in range(0, len(passages), block):
        part = torch.as_tensor(np.ascontiguousarray(passages[start : start + block]), device=device)
        scores, indices = (queries @ part.T).topk(min(k, len(part)), dim=1)
        indices = indices + start
        if best is not None and where is not None:
            scores = torch.cat([best, scores], 1)
            indices = torch.cat([where, indices], 1)
            scores, order = scores.topk(min(k, scores.shape[1]), dim=1)
            indices = indices.gather(1, order)
        best, where = scores, indices
    assert best is not None and where is not None, "no passages"
    return best, where

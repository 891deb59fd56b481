"""Scores of queries against passages: one vector per text, or one per token (late interaction)."""

from __future__ import annotations

from collections.abc import Callable

import torch

Similarity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Vectors of B queries and P passages -> scores, fp32 [B, P]."""

_ELEMENTS = 2**25
"""Token pairs that late interaction holds at once: 128 MiB in fp32."""


def dot(queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
    """Dot products (cosines of unit vectors): [B, D] and [P, D] -> fp32 [B, P]."""
    return queries.float() @ passages.float().T


def late_interaction(queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
    """`maxsim` of token vectors whose padding is zero vectors: [B, Lq, D] and [P, Lp, D] -> fp32 [B, P].

    A real token's vector is never zero: it has unit length.
    """
    return maxsim(queries, queries.detach().ne(0).any(-1), passages, passages.detach().ne(0).any(-1))


def maxsim(
    queries: torch.Tensor,
    query_mask: torch.Tensor,
    passages: torch.Tensor,
    passage_mask: torch.Tensor,
    *,
    elements: int = _ELEMENTS,
) -> torch.Tensor:
    """ColBERT's late interaction: the sum over query tokens of their best match among the passage's tokens.

    Padding counts on neither side, whatever its vectors are; a passage without any token scores -inf. Khattab and
    Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over BERT", 2020
    (https://arxiv.org/abs/2004.12832).

    Args:
        queries: [B, Lq, D]. passages: [P, Lp, D].
        query_mask: bool [B, Lq], True for real tokens. passage_mask: bool [P, Lp].
        elements: token pairs held at once, at least those of one passage (B * Lq * Lp). For the backward pass only
            which token matched best is kept (B * P * Lq numbers).

    Returns:
        fp32 [B, P].
    """
    queries, passages = queries.float(), passages.float()
    block = max(1, elements // max(1, queries.shape[0] * queries.shape[1] * passages.shape[1]))
    scores = [
        _maxsim_block(queries, query_mask, passages[start : start + block], passage_mask[start : start + block])
        for start in range(0, len(passages), block)
    ]
    return torch.cat(scores, dim=1)


def _maxsim_block(
    queries: torch.Tensor, query_mask: torch.Tensor, passages: torch.Tensor, passage_mask: torch.Tensor
) -> torch.Tensor:
    n_queries, query_length, width = queries.shape
    n_passages, passage_length, _ = passages.shape
    # One product [B * Lq, P * Lp]: nothing but its result is large, and its gradient needs the inputs alone.
    pairs = queries.reshape(-1, width) @ passages.reshape(-1, width).T
    pairs = pairs.view(n_queries, query_length, n_passages, passage_length)
    best = pairs.masked_fill_(~passage_mask, -torch.inf).max(dim=3).values
    return best.masked_fill(~query_mask[:, :, None], 0).sum(1)

"""Listwise softmax: rank the positive first in its query's own list."""

from __future__ import annotations

from pipeline_finetune.losses.base import SoftmaxLoss


class ListwiseSoftmax(SoftmaxLoss):
    """Cross-entropy of the positive in the softmax over the list of one query, scores divided by a temperature.

    For query `i` with positive `p` and list `L_i`: ``-log(exp(s_ip / t) / sum_{j in L_i} exp(s_ij / t))``. Only the
    order within a list is learned: a constant added to all scores of a query changes nothing. Scores that must mean
    the same across queries (a threshold, say) want `PointwiseBCE`.

    Reference: Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach" (ListNet), 2007
    (https://www.microsoft.com/en-us/research/publication/learning-to-rank-from-pairwise-approach-to-listwise-approach/),
    with one relevant passage; for rerankers Gao et al., "Rethink Training of BERT Rerankers in Multi-Stage Retrieval
    Pipeline", 2021 (https://arxiv.org/abs/2101.08751), who call it localized contrastive estimation.

    Relations: the same formula as `InfoNCE` with hard negatives only. A cross-encoder reads query and passage
    together, so every candidate costs a pass of its own and passages of other queries are never candidates.
    sentence-transformers' ListNetLoss puts the labels through a softmax too, so even its best scores are not certain.

    Args:
        temperature: > 0; 1 leaves the scores as the head gives them.
    """

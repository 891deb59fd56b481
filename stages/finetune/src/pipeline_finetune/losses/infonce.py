"""InfoNCE: tell the positive passage from all other candidates by a softmax over scores."""

from __future__ import annotations

from pipeline_finetune.losses.base import SoftmaxLoss


class InfoNCE(SoftmaxLoss):
    """Cross-entropy of the positive among a query's candidate passages, scores divided by a temperature.

    For query `i` with positive `p` and candidates `C_i`: ``-log(exp(s_ip / t) / sum_{j in C_i} exp(s_ij / t))``.
    The mask says who competes, so one loss serves every way of training:

    * hard negatives only (the default): each query's own passages are its candidates. The batch size then changes the
      number of updates, never the task.
    * in-batch negatives: every distinct passage of the step is a candidate, except known positives of the query.
      Larger batches make the task harder. Use it with unrolled or synthetic data only with known positives masked.
    * cross-rank negatives: the same over the passages of all processes.

    Because a step's passages are distinct, a passage that several rows share is one column and counts once.

    Reference: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018
    (https://arxiv.org/abs/1807.03748); with hard negatives as in Karpukhin et al., "Dense Passage Retrieval", 2020
    (https://arxiv.org/abs/2004.04906).

    Relations: sentence-transformers calls the in-batch form MultipleNegativesRankingLoss (its scale is 1 / t); with
    gradients through cached vectors it is the CachedMultipleNegativesRankingLoss. `ListwiseSoftmax` is the same
    formula over a cross-encoder's scores.

    Args:
        temperature: > 0. Small values look at the hardest candidates alone.
    """

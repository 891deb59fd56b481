"""Signs that tell early whether training goes well: they cost nothing beside the step they describe."""

from __future__ import annotations

import logging
from collections import deque

import torch

from pipeline.errors import PipelineError

log = logging.getLogger("pipeline")
_PATIENCE = 20
"""Steps in a row with equal scores before training is called collapsed."""
_EQUAL = 1e-4
"""Scores whose spread is below this share of their size count as equal."""


@torch.no_grad()
def score_health(scores: torch.Tensor, positive: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Where the positives stand against their hardest competitors.

    Args:
        scores: fp32 [B, P]. positive: int64 [B]. candidates: bool [B, P], the positive's column included.

    Returns:
        fp32 [4]: mean score of the positives, mean score of each row's hardest negative, share of rows whose positive
        is first, mean standard deviation of a row's candidate scores (rows without a negative left out).
    """
    rows = torch.arange(len(scores), device=scores.device)
    own = scores[rows, positive]
    negatives = candidates.clone()
    negatives[rows, positive] = False
    kept = negatives.any(1)
    if not kept.any():
        return torch.stack([own.mean(), *own.new_full((3,), float("nan"))])
    hardest = scores.masked_fill(~negatives, -torch.inf).amax(1)[kept]
    count = candidates.sum(1)
    centre = scores.masked_fill(~candidates, 0).sum(1) / count
    squares = (scores - centre[:, None]).masked_fill(~candidates, 0).square().sum(1)
    spread = (squares / count).sqrt()[kept]
    return torch.stack([own.mean(), hardest.mean(), (own[kept] > hardest).float().mean(), spread.mean()])


HEALTH = ("positive_score", "hardest_negative_score", "accuracy", "score_spread")
"""Names of what `score_health` returns."""


class CollapseGuard:
    """Notices scores that no longer depend on the passage: from there a model does not come back.

    Args:
        stops: end the run; otherwise warn once.
    """

    def __init__(self, stops: bool) -> None:
        self.stops = stops
        self._recent: deque[bool] = deque(maxlen=_PATIENCE)
        self._warned = False

    def watch(self, step: int, health: dict[str, float]) -> None:
        """Take the health of a step.

        Raises:
            PipelineError: every passage has got the same score for `_PATIENCE` steps in a row.
        """
        size = max(1.0, abs(health["positive_score"]))
        self._recent.append(health["score_spread"] < _EQUAL * size)
        if len(self._recent) < _PATIENCE or not all(self._recent) or self._warned:
            return
        error = PipelineError(
            f"the scores of all passages have been equal for {_PATIENCE} steps (step {step}: positives "
            f"{health['positive_score']:.4g}, spread {health['score_spread']:.2g}): the model has collapsed",
            fix="lower learning_rate, raise lr_warmup_steps; check that positives and negatives differ in the data",
        )
        if self.stops:
            raise error
        log.warning("%s", error)
        self._warned = True

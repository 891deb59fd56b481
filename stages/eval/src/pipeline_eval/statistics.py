"""Is the difference between two systems real? Both answered the same questions, so everything is paired.

References: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval); Smucker,
Allan & Carterette, "A comparison of statistical significance tests for IR evaluation" (CIKM 2007) on the
randomisation test; Bloom, "Minimum detectable effects" (Evaluation Review 19(5), 1995,
https://doi.org/10.1177/0193841X9501900504).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.05
POWER = 0.8
FEW_QUERIES = 50
"""Below this many questions an interval is too wide to say much."""

_ROUNDING = 1e-12
_BLOCK = 2_000_000
"""Numbers held at once: 16 MB, whatever the size of the test set."""


@dataclass(frozen=True)
class Comparison:
    """How much higher system b scores than system a, in the mean over the questions.

    `detectable` is the `minimum_detectable_effect` of these questions.
    """

    delta: float
    ci95: tuple[float, float]
    p: float
    detectable: float | None

    @property
    def verdict(self) -> str:
        """`better` or `worse` when p < 0.05 and the interval leaves out 0, else `indistinguishable`."""
        low, high = self.ci95
        if self.p >= LEVEL or low <= 0 <= high:
            return "indistinguishable"
        return "better" if self.delta > 0 else "worse"


def compare(a: np.ndarray, b: np.ndarray, samples: int = 10_000, seed: int = 42) -> list[Comparison]:
    """Compare two systems on the same questions, several metrics at once.

    Args:
        a, b: per-question scores [questions, metrics].
        samples: bootstrap resamples, and random sign assignments of the randomisation test.

    Returns:
        One comparison for each metric: mean difference b - a, its 95 % percentile-bootstrap interval, and the
        two-sided p-value of the paired randomisation (sign-flip) test. Swapping a and b mirrors all of them. The
        p-values stand each for itself: they are not adjusted for the number of comparisons.

    Raises:
        ValueError: shapes differ, or there are no questions.
    """
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise ValueError(f"scores must have one shape [questions, metrics], got {a.shape} and {b.shape}")
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    # Differences that are only rounding would turn a tie into a sign, and the test into a coin toss.
    differences[np.abs(differences) < _ROUNDING] = 0.0
    means = differences.mean(0)
    low, high = mean_interval(differences, samples, seed)
    p = _sign_flip_p(differences, samples, seed)
    return [
        Comparison(
            float(means[i]), (float(low[i]), float(high[i])), float(p[i]), minimum_detectable_effect(differences[:, i])
        )
        for i in range(differences.shape[1])
    ]


def mean_interval(values: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [metrics] of the 95 % percentile-bootstrap interval of the mean of `values` [questions, metrics]."""
    low, high = np.quantile(_bootstrap_means(values, samples, seed), [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return low, high


def minimum_detectable_effect(differences: np.ndarray) -> float | None:
    """The smallest true mean difference that so many questions show four times out of five (5 % level, two-sided).

    (z(0.975) + z(0.8)) standard errors of the mean, so 2.8 of them (Bloom 1995); a little too small below 30 questions,
    where a normal distribution is narrower than the truth.

    Args:
        differences: paired differences of one metric [questions].

    Returns:
        None if the differences tell no spread: fewer than two questions, or all differences equal.
    """
    if len(differences) < 2 or (spread := float(np.std(differences, ddof=1))) < _ROUNDING:
        return None
    normal = NormalDist()
    return (normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)) * spread / len(differences) ** 0.5


def _bootstrap_means(differences: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Means of `samples` resamples [samples, metrics]: each is a vector of counts times the differences."""
    questions = len(differences)
    random = np.random.default_rng([seed, 0])
    parts = []
    for rows in _blocks(samples, questions):
        drawn = random.integers(0, questions, size=(rows, questions))
        drawn += np.arange(rows)[:, None] * questions
        counts = np.bincount(drawn.ravel(), minlength=rows * questions).reshape(rows, questions)
        parts.append(counts.astype(np.float64) @ differences / questions)
    return np.concatenate(parts)


def _sign_flip_p(differences: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Share of random sign assignments whose mean is at least as far from 0 as the one seen [metrics].

    The one that was seen counts as one of them, so that p is never 0.
    """
    seen = np.abs(differences.sum(0))
    random = np.random.default_rng([seed, 1])
    as_far = np.zeros(differences.shape[1])
    for rows in _blocks(samples, len(differences)):
        signs = random.integers(0, 2, size=(rows, len(differences))).astype(np.float64) * 2 - 1
        as_far += (np.abs(signs @ differences) >= seen - 1e-9).sum(0)
    return (as_far + 1) / (samples + 1)


def _blocks(samples: int, questions: int) -> Iterator[int]:
    """Sizes that add up to `samples` and keep [size, questions] within the memory budget."""
    size = max(1, _BLOCK // questions)
    while samples > 0:
        yield min(size, samples)
        samples -= size

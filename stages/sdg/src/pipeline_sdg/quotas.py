"""Exact shares: how many pairs of each type to ask for."""

from __future__ import annotations

from collections.abc import Mapping


def largest_remainder(weights: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole numbers in proportion to `weights` that sum to `total` (largest remainder method, Hamilton).

    Ties go to the name that stands first. Names with weight 0 get 0.
    """
    whole = sum(weights.values())
    if whole <= 0:
        raise ValueError("at least one weight must be positive")
    shares = {name: weight * total // whole for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: -(weights[name] * total % whole))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def without(weights: Mapping[str, int], *names: str) -> dict[str, int]:
    """`weights` less some names; all weights 1 if nothing positive is left."""
    rest = {name: weight for name, weight in weights.items() if name not in names}
    return rest if sum(rest.values()) else dict.fromkeys(rest, 1)

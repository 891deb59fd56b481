"""Exact shares: how many pairs of each type to ask for, and which types come together in one pair."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

from pipeline_sdg.chunking import Window


def largest_remainder(weights: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole numbers in proportion to `weights` that sum to `total` (largest remainder method, Hamilton).

    Ties go to the name that stands first. Names with weight 0 get 0.
    """
    whole = _positive(weights)
    shares = {name: weight * total // whole for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: -(weights[name] * total % whole))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def rotating_shares(weights: Mapping[str, int], total: int, turn: int) -> dict[str, int]:
    """Whole numbers that sum to `total`, each the exact share rounded down or up; who is rounded up changes by turn.

    Over many turns every name gets exactly its share on average, however small `total` is; the largest remainders
    alone would never ask for the rarer types. Systematic sampling of the remainders (Madow 1949,
    https://doi.org/10.1214/aoms/1177729988).
    """
    whole = _positive(weights)
    shares = {name: weight * total // whole for name, weight in weights.items()}
    unit = math.gcd(*weights.values())
    period = whole // unit
    point = (period // 2 + turn * _stride(period)) % period * unit
    reached = 0
    for name, weight in weights.items():
        reached += weight * total % whole
        if point < reached:
            shares[name] += 1
            point += whole
    return shares


def remaining(quota: Mapping[str, int], used: Iterable[str], total: int) -> dict[str, int]:
    """What is left of a quota, as `total` places: names that were used too often have none left."""
    spent = list(used)
    left = {name: max(0, count - spent.count(name)) for name, count in quota.items()}
    return largest_remainder(left if sum(left.values()) else quota, total)


def without(weights: Mapping[str, int], name: str, known: Sequence[str]) -> dict[str, int]:
    """`weights` less a name; if nothing is left, equal shares of the others in `weights`, or else of those `known`."""
    rest = {other: weight for other, weight in weights.items() if other != name}
    if sum(rest.values()):
        return rest
    return dict.fromkeys(rest or (other for other in known if other != name), 1)


def in_blocks(quota: Mapping[str, int], turn: int = 0) -> list[str]:
    """Every name as often as the quota says, the same beside each other, beginning at another place each turn."""
    return _rotated([name for name, count in quota.items() for _ in range(count)], turn)


def in_turn(quota: Mapping[str, int], turn: int = 0) -> list[str]:
    """Every name as often as the quota says, evenly mixed; put beside `in_blocks` all combinations come up."""
    places = [((number + 0.5) / count, name) for name, count in quota.items() for number in range(count)]
    return _rotated([name for _, name in sorted(places, key=lambda place: place[0])], turn)


def turns_of(window: Window) -> tuple[int, int, int]:
    """Three numbers that spread what is asked for over the windows of a corpus.

    They follow from the window's document and index alone, so a longer corpus changes no request that was paid for.
    """
    digest = hashlib.sha256(window.document.encode("utf-8", "surrogatepass")).digest()
    first, second, third = (int.from_bytes(digest[start : start + 4]) + window.index for start in (0, 4, 8))
    return first, second, third


def _positive(weights: Mapping[str, int]) -> int:
    whole = sum(weights.values())
    if whole <= 0:
        raise ValueError("at least one weight must be positive")
    return whole


def _stride(period: int) -> int:
    """A step that meets every number below `period`, neighbouring turns far apart (about the golden section)."""
    step = max(1, period * 5 // 8)
    while math.gcd(step, period) > 1:
        step += 1
    return step


def _rotated(names: Sequence[str], turn: int) -> list[str]:
    start = turn % len(names) if names else 0
    return [*names[start:], *names[:start]]

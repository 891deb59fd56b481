"""Groups of documents to splits: shares met, no split empty, the mix of query types the same everywhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline.errors import PipelineError

SPLITS = ("train", "val", "test")
Ratios = dict[str, float]
"""Split -> share of the documents; they are made to sum to 1, so rounding errors do no harm."""
Types = Mapping[str, Counter[str]]
"""Document -> how many questions of each type it has."""


def assign(groups: Sequence[list[str]], ratios: Ratios, seed: int, types: Types | None = None) -> dict[str, str]:
    """Document -> split. Shares are met by largest remainder; every split with a ratio gets at least one group.

    Groups of many documents, then of many questions, are placed first. Among the splits with room for a group it goes
    where the mix of types comes nearest to its target; small groups make up for what large ones upset, and single
    documents fill the shares exactly. The problem is that of Sechidis, Tsoumakas and Vlahavas (2011), "On the
    stratification of multi-label data", https://doi.org/10.1007/978-3-642-23808-6_10.

    Raises:
        PipelineError: fewer groups than splits.
    """
    requested = [name for name in SPLITS if ratios[name] > 0]
    total = sum(len(group) for group in groups)
    if len(groups) < len(requested):
        raise _too_few(len(groups), total, requested)
    room = _shares(total, ratios, requested)
    counts = [_types_of(group, types or {}) for group in groups]
    of_type = _types_of([document for group in groups for document in group], types or {})
    target = {name: {kind: count * room[name] / total for kind, count in of_type.items()} for name in requested}
    held: dict[str, Counter[str]] = {name: Counter() for name in requested}

    order = sorted(range(len(groups)), key=lambda number: sorted(groups[number]))
    random.Random(seed).shuffle(order)
    # About as many questions is as good as equal: the seed decides.
    order.sort(key=lambda number: (-len(groups[number]), -counts[number].total().bit_length()))
    split_of: dict[str, str] = {}
    empty = list(requested)
    for position, number in enumerate(order):
        group, count = groups[number], counts[number]
        # As many groups left as empty splits: from here on they are promised to these.
        among = empty if len(order) - position <= len(empty) else requested
        among = [name for name in among if room[name] >= len(group)] or [max(among, key=room.__getitem__)]
        chosen = min(among, key=lambda name: (_misfit(held[name], target[name], count), -room[name]))
        room[chosen] -= len(group)
        held[chosen].update(count)
        empty = [name for name in empty if name != chosen]
        split_of.update(dict.fromkeys(group, chosen))
    return split_of


def _types_of(group: list[str], types: Types) -> Counter[str]:
    found: Counter[str] = Counter()
    for name in group:
        found.update(types.get(name, {}))
    return found


def _misfit(held: Counter[str], target: dict[str, float], count: Counter[str]) -> float:
    """How much further from its target (chi-square over the types) a split is with these questions than without.

    Rounded, so that what is equal is equal in floating point too.
    """
    return round(sum(n * (2 * (held[kind] - target[kind]) + n) / target[kind] for kind, n in count.items()), 9)


def _too_few(groups: int, documents: int, requested: list[str]) -> PipelineError:
    why = "they share a passage or are nearly the same"
    shared = f" ({documents} documents, joined where {why})" if documents > groups else ""
    fewer = ", or give up a split: val_ratio=0 and its share to train_ratio"
    return PipelineError(
        f"{groups} independent documents with questions{shared} cannot fill {', '.join(requested)}: "
        f"at least {len(requested)} are needed",
        fix=f"add documents, or lower quality_threshold{fewer if 'val' in requested else ''}",
    )


def _shares(total: int, ratios: Ratios, requested: list[str]) -> dict[str, int]:
    """Whole numbers that sum to `total`, at least 1 each (needs total >= len(requested))."""
    exact = {name: total * ratios[name] / sum(ratios.values()) for name in requested}
    shares = {name: int(value) for name, value in exact.items()}
    # Rounded, so that equal remainders stay equal in floating point: train first, then val, then test.
    by_remainder = sorted(requested, key=lambda name: round(shares[name] - exact[name], 9))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    for name in requested:
        if not shares[name]:
            shares[max(shares, key=lambda other: shares[other])] -= 1
            shares[name] = 1
    return shares

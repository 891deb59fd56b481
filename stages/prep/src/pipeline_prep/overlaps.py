"""Which sets of features have enough in common: found exactly, with an index over the rare features of each set.

Two sets that share a given part of themselves share one of their rarest features already, and from where the first
shared one stands follows how many more they can share at most: Xiao, Wang, Lin and Yu (2008), "Efficient similarity
joins for near duplicate detection", https://doi.org/10.1145/1367497.1367516. Texts from one template, of which every
pair shares much and no pair enough, cost a look at a few common features each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.records.sources.ragged import Ragged

_EXACT = 1e-9
"""Products of a threshold and a size are compared with this much tolerance: a pair at the threshold is one."""
_FIRST_BLOCK, _LARGEST_BLOCK = 8, 4096
_NOBODY = np.empty(0, np.int64)


class FeatureSets:
    """Sets of 64-bit features, held as ranks: 0 is the feature that the fewest sets hold.

    Attributes:
        ranks: the ranks of each set, ascending.
        sizes: int64 [n].
    """

    def __init__(self, sets: Iterable[frozenset[int]]) -> None:
        arrays = [_array(features) for features in sets]
        every = np.concatenate([np.empty(0, np.uint64), *arrays])
        self.vocabulary, places, held_by = np.unique(every, return_inverse=True, return_counts=True)
        self._rank = np.empty(len(held_by), np.int64)
        self._rank[np.argsort(held_by, kind="stable")] = np.arange(len(held_by))
        counts = np.fromiter(map(len, arrays), np.int64, len(arrays))
        unsorted = Ragged.of_counts(counts, self._rank[places])
        order = np.lexsort((unsorted.values, unsorted.row_numbers))
        self.ranks = Ragged(unsorted.offsets, unsorted.values[order])
        self.sizes = counts
        self._held = np.zeros(len(held_by), bool)

    def ranks_of(self, features: frozenset[int]) -> np.ndarray:
        """Ranks of those of the features that any set holds, ascending: int64."""
        wanted = _array(features)
        if not len(self.vocabulary) or not len(wanted):
            return _NOBODY
        places = np.searchsorted(self.vocabulary, wanted).clip(max=len(self.vocabulary) - 1)
        return np.sort(self._rank[places[self.vocabulary[places] == wanted]])

    def common(self, ranks: np.ndarray, others: np.ndarray) -> np.ndarray:
        """How many features each of the sets `others` shares with `ranks`: int64 [len(others)]."""
        self._held[ranks] = True
        places, values = self.ranks.take(others)
        counts = np.bincount(places[self._held[values]], minlength=len(others))
        self._held[ranks] = False
        return counts

    def postings(self, rarest: np.ndarray | None = None) -> Ragged:
        """For each rank the places in `ranks.values` where it stands; of each set the `rarest` ([n]) features alone."""
        values = self.ranks.values
        places = np.arange(len(values))
        if rarest is not None:
            rows = self.ranks.row_numbers
            places = places[places - self.ranks.offsets[rows] < rarest[rows]]
        places = places[np.argsort(values[places], kind="stable")]
        return Ragged.of_counts(np.bincount(values[places], minlength=len(self.vocabulary)), places)


def decisive(size: np.ndarray | int, threshold: float) -> np.ndarray:
    """How many of its rarest features a set must look at: whoever shares `threshold` of it holds one of them."""
    return np.asarray(size - np.ceil(threshold * np.asarray(size) - _EXACT) + 1, np.int64)


def joined_pairs(sets: FeatureSets, threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) with a Jaccard of at least `threshold`, each of which joins what was not joined before.

    Yields:
        (number, -1) once for each set besides, after its pairs: so far the work is done.
    """
    values, offsets = sets.ranks.values, sets.ranks.offsets
    looked_at = np.minimum(decisive(sets.sizes, threshold), sets.sizes)
    postings = sets.postings(looked_at)
    where = np.empty(len(values), np.int64)
    where[postings.values] = np.arange(len(postings.values))
    rows = sets.ranks.row_numbers[postings.values]
    # A Jaccard of t means that t / (1 + t) of both sizes is common: no more may be common than is left of either set.
    share = threshold / (1 + threshold)
    wanted = share * sets.sizes[rows] - _EXACT
    spare = sets.sizes[rows] - (postings.values - offsets[rows]) - wanted
    group, seen = np.arange(len(sets.sizes)), np.full(len(sets.sizes), -1)
    members = {number: [number] for number in range(len(group))}
    for number, size in enumerate(sets.sizes.tolist()):
        own = values[offsets[number] : offsets[number + 1]]
        for place in range(looked_at[number]):
            # The postings of a feature ascend: those before its own are the earlier sets.
            end = where[offsets[number] + place]
            earlier = slice(postings.offsets[own[place]], end)
            if earlier.start == end:
                continue
            enough = (spare[earlier] >= share * size) & (wanted[earlier] <= size - place - share * size)
            others = rows[earlier][enough]
            others = others[(group[others] != group[number]) & (seen[others] != number)]
            seen[others] = number
            for other in _alike(sets, own, others, threshold, group, number):
                _join(group, members, int(group[other]), int(group[number]))
                yield number, other
        yield number, -1


def _alike(
    sets: FeatureSets, own: np.ndarray, others: np.ndarray, threshold: float, group: np.ndarray, number: int
) -> Iterator[int]:
    """Those of `others` that are alike and, each in its turn, not in the group of `number`."""
    block = _FIRST_BLOCK
    while len(others):
        some, others = others[:block], others[block:]
        common = sets.common(own, some)
        for other in some[common / (len(own) + sets.sizes[some] - common) >= threshold].tolist():
            if group[other] != group[number]:
                yield other
        others = others[group[others] != group[number]]
        block = min(2 * block, _LARGEST_BLOCK)


def _join(group: np.ndarray, members: dict[int, list[int]], one: int, other: int) -> None:
    small, large = sorted((one, other), key=lambda label: len(members[label]))
    group[members[small]] = large
    members[large] += members.pop(small)


class Lookup:
    """Finds for a set one of `sets` that is like it.

    Two sets of one size with a Jaccard of t share 2t / (1 + t) of each. With `contained` that share of the smaller set
    is enough, however much larger the other one is.

    Args:
        contained: least size at which a set that lies in the other counts too; None: never.
    """

    def __init__(self, sets: FeatureSets, threshold: float, contained: int | None = None) -> None:
        self.sets, self.threshold, self.contained = sets, threshold, contained
        self._rows = sets.ranks.row_numbers
        self._places = np.arange(len(self._rows)) - sets.ranks.offsets[self._rows]
        self._rare = sets.postings(decisive(sets.sizes, threshold))
        self._all = sets.postings() if contained is not None else None

    def first(self, features: frozenset[int]) -> int:
        """Number of the first one alike, -1 for none."""
        ranks, size = self.sets.ranks_of(features), len(features)
        others = self._candidates(ranks, size)
        if not len(others):
            return -1
        sizes, common = self.sets.sizes[others], self.sets.common(ranks, others)
        alike = common / (size + sizes - common) >= self.threshold
        if self.contained is not None:
            alike |= (np.minimum(size, sizes) >= self.contained) & (common >= self._needed(size, sizes))
        return int(others[alike][0]) if alike.any() else -1

    def _candidates(self, ranks: np.ndarray, size: int) -> np.ndarray:
        """Numbers of the sets that may share enough, ascending."""
        unknown = size - len(ranks)
        places, found = self._rare.take(ranks)
        if self._all:
            # What lies in a larger set may share none of that one's rare features.
            rarest = ranks[: max(0, int(decisive(size, self.threshold)) - unknown)]
            more, also = self._all.take(rarest)
            places, found = np.concatenate([places, more]), np.concatenate([found, also])
        sizes = self.sets.sizes[self._rows[found]]
        left = np.minimum(size - unknown - places, sizes - self._places[found])
        return np.unique(self._rows[found[left >= self._needed(size, sizes)]])

    def _needed(self, size: int, sizes: np.ndarray) -> np.ndarray:
        """Least number of common features."""
        both = size + sizes if self.contained is None else 2 * np.minimum(size, sizes)
        return self.threshold / (1 + self.threshold) * both - _EXACT


def _array(features: frozenset[int]) -> np.ndarray:
    return np.fromiter(features, np.uint64, len(features))

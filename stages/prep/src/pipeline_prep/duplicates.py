"""Texts that are nearly the same: shared word sequences (Jaccard). MinHash says who may have a pair; that is checked.

Shingling, MinHash and banding as in Broder (1997), "On the resemblance and containment of documents",
https://doi.org/10.1109/SEQUEN.1997.666900, and Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3,
http://www.mmds.org. The sketches are `datasketch`'s; its LSH index is not used: it holds a Python set for each text and
band (gigabytes for a million texts), where sorting an array does the same.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from pipeline.run.progress import progress
from pipeline_prep.overlaps import FeatureSets, Lookup, joined_pairs

WORDS = 5
"""Words of a shingle."""
SKETCH = 128
"""Hash values of a sketch."""
RECALL = 0.9999
"""Least probability that a pair exactly at the threshold is looked at; those above it have more."""
LONG = 20
"""Words from which on a text that lies in another counts as a part of it: shorter ones are headings and phrases."""

Features = Callable[[str], frozenset[int]]

_MANY = 20_000
_NOBODY = np.empty(0, np.int64)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# Scripts written without spaces: each of their characters is a word of its own.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Not \w: it would tear words apart at the vowel signs of Indian scripts.
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s!-/:-@\[-`{{-~\u00a1-\u00bf\u2000-\u206f\u3000-\u303f{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Words without case and punctuation; text of nothing but punctuation is one word."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(folded) or folded.split()


def shingles(text: str) -> frozenset[int]:
    """Hashes (64 bit, the same in every process) of the sequences of 5 words; a shorter text is one sequence."""
    found = words(text)
    return frozenset(_sequences(_hashes(found), WORDS).tolist()) if found else frozenset()


def question_shingles(text: str) -> frozenset[int]:
    """For short texts: hashes of the words and of three characters each.

    Two questions with different numbers ("… in 2019?", "… in 2020?") have nothing in common: they ask for different
    things, though nearly every character is the same.
    """
    found = words(text)
    if not found:
        return frozenset()
    line = f" {' '.join(found)} "
    characters = np.frombuffer(line.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    features = np.concatenate([_hashes(found), _sequences(characters, 3)])
    numbers = sorted(word for word in found if any(map(str.isdigit, word)))
    return frozenset((features + _hashes([" ".join(numbers)])).tolist())


def jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    """Share of common elements, 0..1; 0 where both are empty, since nothing says that they are alike."""
    common = len(first & second)
    return common / (len(first) + len(second) - common) if common else 0.0


def near_duplicate_pairs(
    texts: Sequence[str], threshold: float, features: Features = shingles
) -> list[tuple[int, int]]:
    """Pairs (i, j) with i < j and a Jaccard of at least `threshold`, ascending.

    Not all of them, but enough that whatever is joined by all is joined, transitively, by these: a thousand copies of
    one page give 999 pairs, not half a million. 150 words cost about 0.3 ms, and as much again where another text looks
    like them.
    """
    suspects = np.unique(np.concatenate([_NOBODY, *_buckets(_sketches(texts, features), threshold)])).tolist()
    sets = FeatureSets(features(texts[number]) for number in suspects)
    pairs = []
    with _followed("near-duplicates: comparing", len(suspects)) as advance:
        for later, earlier in joined_pairs(sets, threshold):
            if earlier >= 0:
                pairs.append((suspects[earlier], suspects[later]))
            else:
                advance()
    return sorted(pairs)


def near_duplicates_of(
    texts: Sequence[str],
    others: Sequence[str],
    threshold: float,
    features: Features = shingles,
    contained: bool = False,
) -> np.ndarray:
    """For each text the number of the first of the `others` that is this alike, -1 for none: int64 [n].

    All are found, without sketches. 150 words cost about 0.2 ms.

    Args:
        contained: a text of at least 20 words counts as alike too if as much of it stands in the other as two texts of
            one length and this Jaccard share, however long the other is; and the other way round.
    """
    found = np.full(len(texts), -1, np.int64)
    if not len(texts) or not len(others):
        return found
    lookup = Lookup(FeatureSets(map(features, others)), threshold, LONG - WORDS + 1 if contained else None)
    with _followed("near-duplicates: looking up", len(texts)) as advance:
        for number, text in enumerate(texts):
            found[number] = lookup.first(features(text))
            advance()
    return found


@contextmanager
def _followed(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Progress lines for work of more than some seconds."""
    if total < _MANY:
        yield lambda: None
        return
    with progress(title, total, "texts") as bar:
        yield bar.advance


def _buckets(sketches: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    """Numbers, ascending, of texts that agree on a whole band of their sketches."""
    rows = _band_rows(threshold)
    # The sketch of an empty text is all ones; such texts are like nothing.
    filled = np.flatnonzero((sketches != np.iinfo(sketches.dtype).max).any(axis=1))
    for start in range(0, SKETCH - rows + 1, rows):
        keys = _sequences(sketches[filled, start : start + rows].astype(np.uint64).T, rows)[0]
        order = np.argsort(keys, kind="stable")
        borders = np.flatnonzero(np.diff(keys[order])) + 1
        starts, ends = np.append(0, borders), np.append(borders, len(order))
        several = ends - starts > 1
        for first, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
            yield filled[order[first:end]]


def _band_rows(threshold: float) -> int:
    """Most rows of a band (fewest false candidates) with `RECALL` at the threshold; 1 if even that is too few."""
    enough = [rows for rows in range(1, SKETCH + 1) if 1 - (1 - threshold**rows) ** (SKETCH // rows) >= RECALL]
    return max(enough, default=1)


def _sketches(texts: Sequence[str], features: Features) -> np.ndarray:
    """uint32 [n, SKETCH]."""
    from datasketch import MinHash

    sketches = np.empty((len(texts), SKETCH), np.uint32)
    hashes = MinHash.generator(map(features, texts), num_perm=SKETCH, scheme="affine32", hashfunc=_upper_half)
    for number, sketch in enumerate(hashes):
        sketches[number] = sketch.hashvalues
    return sketches


def _upper_half(value: int) -> int:
    return value >> 32


def _sequences(values: np.ndarray, length: int) -> np.ndarray:
    """One hash for each `length` neighbours along the first axis (for all of them, if there are fewer)."""
    length = min(length, len(values))
    count = len(values) - length + 1
    hashes = np.zeros((count, *values.shape[1:]), np.uint64)
    for place in range(length):
        hashes = (hashes ^ values[place : place + count]) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(29)
    return hashes * _MULTIPLIER


class _WordHashes(dict[str, int]):
    """Word -> hash, worked out once; starts anew when it grows large."""

    MOST = 1 << 20

    def __missing__(self, word: str) -> int:
        if len(self) >= self.MOST:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = value = int.from_bytes(digest, "little")
        return value


_WORD_HASHES = _WordHashes()


def _hashes(found: list[str]) -> np.ndarray:
    return np.fromiter(map(_WORD_HASHES.__getitem__, found), np.uint64, len(found))

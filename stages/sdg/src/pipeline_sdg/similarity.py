"""Which questions of the whole corpus ask the same: by vectors of an embedding model, or by their words.

Both ways are exact, work through the questions block by block, and keep the best question of every group.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from pipeline_sdg.wording import words

BLOCK = 1024
TILE = 8192
"""Rows compared at once: BLOCK of them with TILE later ones. Memory is their product, whatever the number of rows."""
CANDIDATES = 2_000_000
"""Pairs of questions looked at together when words are compared."""
K1, B = 1.2, 0.75

_VERIFIED = 100_000
_ROUNDING = 1e-6
# Scripts written without spaces: a run of their characters is no word; its pairs of characters stand for it.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")

Near = Iterator[tuple[int, np.ndarray]]
"""(place, later places whose cosine with it is above the threshold); places count rows from the best on."""


def word_vectors(questions: Iterable[str]) -> sparse.csr_matrix:
    """BM25 term weights over the corpus's own questions, in rows of length one: fp64 (n, vocabulary).

    The weights are BM25's (Robertson and Zaragoza 2009, https://doi.org/10.1561/1500000019) but compared by cosine:
    that is symmetric and bounded by one, so that one threshold serves words and embeddings alike. Not Jaccard
    (MinHash), because the rare word decides: "code E21" and "code E22" are different questions although most of their
    words agree.
    """
    vocabulary: dict[str, int] = {}
    columns, starts = array("i"), array("q", [0])
    for question in questions:
        columns.extend(vocabulary.setdefault(term, len(vocabulary)) for term in terms(question))
        starts.append(len(columns))
    shape = (len(starts) - 1, max(len(vocabulary), 1))
    ones = np.ones(len(columns))
    counts = sparse.csr_matrix((ones, np.asarray(columns), np.asarray(starts)), shape=shape)
    counts.sum_duplicates()
    return unit_rows(weighted(counts, np.diff(starts)))


def weighted(counts: sparse.csr_matrix, lengths: np.ndarray) -> sparse.csr_matrix:
    """BM25 term weights of texts, written over their word counts.

    Args:
        counts: fp64 (n, vocabulary), no word twice in a row.
        lengths: words of each text, [n].
    """
    norms = 1 - B + B * lengths / max(lengths.mean(), 1) if len(lengths) else lengths
    per_entry = np.repeat(norms, np.diff(counts.indptr))
    saturated = counts.data * (K1 + 1) / (counts.data + K1 * per_entry)
    in_texts = np.bincount(counts.indices, minlength=counts.shape[1])
    rarity = np.log1p((counts.shape[0] - in_texts + 0.5) / (in_texts + 0.5))
    counts.data = saturated * rarity[counts.indices]
    return counts


def unit_rows(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows of length one; a row of zeros stays."""
    sizes = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags_array(1 / np.maximum(sizes, 1e-12)) @ rows)


def terms(text: str) -> Iterator[str]:
    """Its words in order; where words are not set apart by spaces, pairs of characters."""
    for word in words(text):
        if word.isascii():
            yield word
            continue
        rest = _UNSPACED.sub(" ", word).split()
        yield from rest
        for run in _UNSPACED.findall(word):
            yield from (run[place : place + 2] for place in range(max(len(run) - 1, 1)))


def rank_of(pair: dict[str, Any], hops_may_drop: bool = False) -> tuple[float, float]:
    """What makes a pair the one to keep: its complexity. `hops_may_drop`: pairs that the hop check may reject come
    last, so that no group is lost with its best."""
    doubtful = hops_may_drop and pair.get("query_type") == "multi_hop"
    return (float(not doubtful), float(pair["question_complexity"]))


def duplicates(
    vectors: np.ndarray | sparse.csr_matrix, threshold: float, rank: np.ndarray | None = None
) -> dict[int, int]:
    """Row -> the row that is kept in its stead, for every row to drop.

    Greedy, the best first: a row is kept unless a row kept before it is above the threshold (strictly). So the best of
    a group stays, and chains of weak likeness do not swallow each other.

    Args:
        vectors: fp32 [n, D] (may be memory-mapped), or sparse rows of length one.
        rank: [n] or [n, m], larger is better, the first column decides; of equals the earlier row is better. None:
            the earlier row is better.
    """
    order = _best_first(vectors.shape[0], rank)
    kept_for = np.full(len(order), -1, np.int64)
    near = _near_vectors if isinstance(vectors, np.ndarray) else _near_words
    for place, others in near(vectors, order, threshold, kept_for):
        if kept_for[place] < 0:
            kept_for[others[kept_for[others] < 0]] = place
    lost = np.flatnonzero(kept_for >= 0)
    return dict(sorted(zip(order[lost].tolist(), order[kept_for[lost]].tolist(), strict=True)))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, fp32; a row of zeros stays."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _best_first(rows: int, rank: np.ndarray | None) -> np.ndarray:
    if rank is None:
        return np.arange(rows)
    columns = np.asarray(rank, np.float64).reshape(rows, -1)
    return np.lexsort([-column for column in columns.T[::-1]])  # stable; its last key decides


def _near_vectors(vectors: np.ndarray, order: np.ndarray, threshold: float, kept_for: np.ndarray) -> Near:
    """`kept_for` is written to by the caller meanwhile: what is dropped already is not compared any more."""
    for first in range(0, len(order), BLOCK):
        rows = _kept(kept_for, first, BLOCK)
        block = unit(vectors[order[rows]])
        # The first tile holds the block itself, so that which of its rows stay is settled before the later tiles.
        for start in range(first, len(order), TILE):
            others = _kept(kept_for, start, TILE)
            cosines = np.minimum(block @ unit(vectors[order[others]]).T, 1)
            for place, row in zip(rows.tolist(), cosines, strict=True):
                yield place, others[(row > threshold) & (others > place)]


def _near_words(vectors: sparse.csr_matrix, order: np.ndarray, threshold: float, kept_for: np.ndarray) -> Near:
    """Compares only rows that share one of their rarest words, and misses nothing by it.

    Words are put in one order, the rare ones first. A row's suffix of words whose length (norm) is at most the
    threshold cannot alone lift a cosine above it; so two such rows share a word of their prefixes. Prefix filtering:
    Bayardo, Ma and Srikant 2007, https://doi.org/10.1145/1242572.1242591.
    """
    columns = np.argsort(vectors.getnnz(axis=0), kind="stable")
    sorted_rows = vectors[order][:, columns].tocsr()
    sorted_rows.sort_indices()
    prefixes = _prefixes(sorted_rows, threshold)
    postings = prefixes.T.tocsr()
    cost = np.asarray(prefixes @ np.diff(postings.indptr)).ravel()
    first = 0
    while first < len(order):
        rows = _kept(kept_for, first, BLOCK)
        rows = rows[: max(int(np.searchsorted(np.cumsum(cost[rows]), CANDIDATES)), 1)]
        first = int(rows[-1]) + 1 if len(rows) else first + BLOCK
        found = (prefixes[rows] @ postings).tocoo()
        left, right = rows[found.row], found.col.astype(np.int64)
        wanted = (right > left) & (kept_for[right] < 0)
        left, right = _above(sorted_rows, left[wanted], right[wanted], threshold)
        borders = np.flatnonzero(np.diff(left, prepend=-1, append=-1))
        for start, end in pairwise(borders.tolist()):
            yield int(left[start]), right[start:end]


def _prefixes(rows: sparse.csr_matrix, threshold: float) -> sparse.csr_matrix:
    """Ones where the words from there on are together longer than the threshold; rows must be sorted."""
    squares = np.concatenate([[0.0], np.cumsum(rows.data**2)])
    until_end = np.repeat(squares[rows.indptr[1:]], np.diff(rows.indptr)) - squares[:-1]
    inside = until_end > threshold**2 - _ROUNDING
    starts = np.concatenate([[0], np.cumsum(inside)])[rows.indptr]
    return sparse.csr_matrix((np.ones(inside.sum(), np.int32), rows.indices[inside], starts), shape=rows.shape)


def _above(
    rows: sparse.csr_matrix, left: np.ndarray, right: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose cosine is above the threshold, ordered by `left`."""
    parts = []
    for start in range(0, len(left), _VERIFIED):
        part = slice(start, start + _VERIFIED)
        cosines = np.asarray(rows[left[part]].multiply(rows[right[part]]).sum(axis=1)).ravel()
        parts.append(np.minimum(cosines, 1) > threshold)
    near = np.concatenate(parts) if parts else np.empty(0, bool)
    sort = np.argsort(left[near], kind="stable")
    return left[near][sort], right[near][sort]


def _kept(kept_for: np.ndarray, first: int, count: int) -> np.ndarray:
    """Those of `count` places from `first` on that are not dropped so far."""
    return first + np.flatnonzero(kept_for[first : first + count] < 0)

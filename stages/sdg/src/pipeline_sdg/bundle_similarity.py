"""Which documents say similar things: groups for `bundle_by=similarity`.

Documents are compared by the words that are rare in the corpus. The most alike join first, as Shi et al. 2023
(https://arxiv.org/abs/2310.10638) put related documents side by side, each used once; taking the best pair that is left
is the greedy matching of Avis 1983 (https://doi.org/10.1002/net.3230130404), here with groups of more than two.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from zlib import crc32

import numpy as np
from scipy import sparse

from pipeline_sdg.similarity import terms, unit_rows, weighted

FLOOR = 0.1
"""Least cosine of two documents that go together. Documents on different matters share rare words only by chance: of
all pairs 94 % of the demo corpus, 95 % of covid_faq and 99.8 % of scifact are below it, while 98 %, 99 % and 79 % of
the documents have a neighbour above it. (In a corpus of three or four documents no word is rare: most stay alone.)"""
HEAVIEST = 128
"""Words of a document that are compared: a long one is about its heaviest words, and memory stays bounded."""
FREQUENT = 512
"""Words of a document that are weighed at all, its most frequent ones."""
NEAREST = 16
"""Neighbours of a document that are looked at in one round."""
PRODUCTS = 1_000_000_000
"""Most multiplications for all cosines together; the words in most documents, which say least, give way to it."""

_FEATURES = 1 << 22
_BLOCK = 256
_STEPS = 1_000_000
"""Cosines are compared in steps of a millionth: what floating point leaves below that must not decide."""


def similar_groups(texts: Iterable[str], size: int) -> list[tuple[int, ...]]:
    """Groups of at most `size` texts, by number, in order; every text is in exactly one.

    A text stays alone if no other that is still free is at least FLOOR alike.
    """
    groups = _Groups(document_vectors(texts), size)
    while size > 1 and groups.round():
        pass
    return groups.found()


def document_vectors(texts: Iterable[str]) -> sparse.csr_matrix:
    """BM25 weights of the HEAVIEST words of each text, in rows of length one: fp64 (n, words).

    The texts are read once. Words are counted under their hash, so that no vocabulary is kept (Weinberger et al. 2009,
    https://arxiv.org/abs/0902.2206).
    """
    columns, counts, starts, lengths = array("i"), array("i"), array("q", [0]), array("q")
    for text in texts:
        found = Counter(terms(text))
        lengths.append(found.total())
        for term, count in found.most_common(FREQUENT):
            columns.append(crc32(term.encode("utf-8", "surrogatepass")) % _FEATURES)
            counts.append(count)
        starts.append(len(columns))
    used, indices = np.unique(np.asarray(columns), return_inverse=True)
    shape = (len(lengths), max(len(used), 1))
    rows = sparse.csr_matrix((np.asarray(counts, np.float64), indices, np.asarray(starts)), shape=shape)
    rows.sum_duplicates()
    return unit_rows(_without_common(_heaviest(weighted(rows, np.asarray(lengths)))))


def _heaviest(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    kept = np.ones(rows.nnz, bool)
    for first, end in zip(rows.indptr[:-1].tolist(), rows.indptr[1:].tolist(), strict=True):
        if end - first > HEAVIEST:
            light = np.argpartition(-rows.data[first:end], HEAVIEST)[HEAVIEST:]
            kept[first + light] = False
    return _only(rows, kept)


def _without_common(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Without the words in so many texts that comparing would take more than PRODUCTS."""
    in_texts = np.bincount(rows.indices, minlength=rows.shape[1]).astype(np.float64)
    order = np.argsort(in_texts, kind="stable")
    most = np.searchsorted(np.cumsum(in_texts[order] ** 2), PRODUCTS, side="right")
    affordable = np.zeros(rows.shape[1], bool)
    affordable[order[:most]] = True
    return _only(rows, affordable[rows.indices])


def _only(rows: sparse.csr_matrix, kept: np.ndarray) -> sparse.csr_matrix:
    starts = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
    return sparse.csr_matrix((rows.data[kept], rows.indices[kept], starts), shape=rows.shape)


class _Groups:
    """Groups that grow: in a round those that have room look for each other, and the most alike join first."""

    def __init__(self, vectors: sparse.csr_matrix, size: int) -> None:
        self._vectors, self._size = vectors, size
        self._members = [[number] for number in range(vectors.shape[0])]
        """The group of each text; texts of one group share the list."""

    def round(self) -> bool:
        """Join what can be joined; False if that was nothing."""
        open_ones = np.asarray([n for n, group in enumerate(self._members) if len(group) < self._size], np.int64)
        joined = False
        for left, right in open_ones[_edges(self._vectors[open_ones])].tolist():
            one, other = self._members[left], self._members[right]
            if one is not other and len(one) + len(other) <= self._size:
                one += other
                for number in other:
                    self._members[number] = one
                joined = True
        return joined

    def found(self) -> list[tuple[int, ...]]:
        return sorted({tuple(sorted(group)) for group in self._members})


def _edges(vectors: sparse.csr_matrix) -> np.ndarray:
    """Pairs of rows at least FLOOR alike, the most alike first: [pairs, 2].

    Each row names its NEAREST. Of equals the next row is nearer, so that copies of one text do not all name the same.
    """
    count = vectors.shape[0]
    columns = vectors.T.tocsr()
    parts = [np.empty((0, 4), np.int64)]
    for first in range(0, count, _BLOCK):
        block = vectors[first : first + _BLOCK] @ columns
        for row in range(block.shape[0]):
            span = slice(block.indptr[row], block.indptr[row + 1])
            others = block.indices[span].astype(np.int64)
            likeness = np.rint(block.data[span] * _STEPS).astype(np.int64)
            near = (likeness >= FLOOR * _STEPS) & (others != first + row)
            others, likeness = others[near], likeness[near]
            away = (others - first - row) % count
            if len(others) > NEAREST:
                best = np.argpartition(away - likeness * count, NEAREST)[:NEAREST]
                others, likeness, away = others[best], likeness[best], away[best]
            parts.append(np.stack([np.full_like(others, first + row), others, -likeness, away], axis=1))
    edges = np.concatenate(parts)
    return edges[np.lexsort(edges.T[[0, 3, 2]]), :2]

"""Which questions of the whole corpus ask the same: by vectors of an embedding model, or by their words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from pipeline_sdg.wording import words

BLOCK = 1024

Neighbours = Iterator[tuple[int, np.ndarray]]
"""(row, the rows whose cosine with it is above the threshold), in order of rows."""


def word_vectors(questions: list[str]) -> sparse.csr_matrix:
    """TF-IDF rows of length one over the corpus's own questions, shape (n, vocabulary).

    TF-IDF cosine rather than BM25, because it is symmetric and bounded by one, so that one threshold serves words and
    embeddings alike; and rather than Jaccard, because the rare word decides: "code E21" and "code E22" are different
    questions although most of their words agree.
    """
    tokens = [words(question) for question in questions]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(word for row in tokens for word in row))}
    columns = [vocabulary[word] for row in tokens for word in row]
    starts = np.cumsum([0, *(len(row) for row in tokens)])
    counts = sparse.csr_matrix(
        (np.ones(len(columns)), columns, starts), shape=(len(questions), max(len(vocabulary), 1))
    )
    counts.sum_duplicates()
    in_documents = np.maximum(counts.getnnz(axis=0), 1)
    weighted = counts.multiply(np.log(1 + len(questions) / in_documents)).tocsr()
    lengths = np.sqrt(weighted.multiply(weighted).sum(axis=1)).A1 if weighted.nnz else np.zeros(len(questions))
    return sparse.diags_array(1 / np.maximum(lengths, 1e-12)) @ weighted


def alike(vectors: np.ndarray | sparse.csr_matrix, threshold: float) -> Neighbours:
    """Neighbours by cosine, blockwise: memory is BLOCK x n whatever n is. Dense rows are normalised here."""
    if isinstance(vectors, np.ndarray):
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    for first in range(0, vectors.shape[0], BLOCK):
        block = vectors[first : first + BLOCK] @ vectors.T
        for offset in range(block.shape[0]):
            if isinstance(block, np.ndarray):
                yield first + offset, np.flatnonzero(np.minimum(block[offset], 1) > threshold)
            else:
                start, end = block.indptr[offset : offset + 2]
                near = np.minimum(block.data[start:end], 1) > threshold
                yield first + offset, block.indices[start:end][near]


def duplicates(vectors: np.ndarray | sparse.csr_matrix, threshold: float) -> dict[int, int]:
    """Row -> the earlier row that asks the same, for every row to drop.

    Greedy in order: a row is kept unless a row kept before it is above the threshold (strictly), so the first of a
    group stays and chains of weak likeness do not swallow each other.
    """
    dropped: dict[int, int] = {}
    for row, near in alike(vectors, threshold):
        if row in dropped:
            continue
        for other in near[near > row]:
            dropped.setdefault(int(other), row)
    return dropped

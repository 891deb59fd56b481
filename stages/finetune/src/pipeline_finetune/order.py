"""In which order an epoch visits its rows: from seed and epoch alone, so that any process can continue it."""

from __future__ import annotations

import numpy as np

from pipeline_finetune.data import MISSING, RowTable


def random_order(table: RowTable, seed: int, epoch: int, batch: int) -> np.ndarray:
    """A permutation of the rows: int64 [n]."""
    return np.random.default_rng([seed, epoch]).permutation(len(table))


def clustered_order(table: RowTable, seed: int, epoch: int, batch: int) -> np.ndarray:
    """A permutation in which rows that share passages tend to stand in the same step, so that a step encodes fewer.

    Each epoch gives every passage a random number; a row is known by the two smallest among its passages' and rows are
    sorted by that: two rows stand together with the probability of their overlap (min-wise hashing: Broder, "On the
    resemblance and containment of documents", 1997). Whole steps are then shuffled; a short one stays last. With
    in-batch negatives it would make a row's rivals its own kin; it is meant for hard negatives alone.
    """
    rng = np.random.default_rng([seed, epoch])
    named = np.concatenate([table.positive[:, None], table.negatives], axis=1)
    draws = rng.random(int(named.max()) + 1)
    values = np.where(named == MISSING, np.inf, draws[named])
    values.partition(1, axis=1)
    order = np.lexsort((rng.random(len(table)), values[:, 1], values[:, 0]))
    whole = len(order) // batch * batch
    steps = order[:whole].reshape(-1, batch)
    return np.concatenate([steps[rng.permutation(len(steps))].ravel(), order[whole:]])


ORDERS = {"random": random_order, "clustered": clustered_order}

"""Every order is a permutation that depends on seed and epoch alone; the clustered one keeps kin together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pipeline_finetune.data import MISSING, RowTable
from pipeline_finetune.order import ORDERS, clustered_order, random_order
from pipeline_finetune.tokens import Ragged


def rows_of(positive, negatives) -> RowTable:
    n = len(positive)
    known = Ragged.of_counts(np.ones(n, np.int64), np.asarray(positive))
    return RowTable([f"q{i}" for i in range(n)], None, np.asarray(positive), np.asarray(negatives), known)


def shared_rows(n: int, clusters: int) -> RowTable:
    """Row i draws all its passages from the pool of cluster i % clusters."""
    rng = np.random.default_rng(0)
    pool = 5
    picks = np.stack([rng.permutation(pool)[:4] + pool * (i % clusters) for i in range(n)])
    return rows_of(picks[:, 0], picks[:, 1:])


@given(st.integers(1, 60), st.integers(1, 16), st.integers(0, 3), st.integers(0, 9))
def test_every_order_is_a_permutation_of_its_own(n, batch, epoch, seed):
    rng = np.random.default_rng(n)
    negatives = rng.integers(0, 20, (n, 3))
    negatives[rng.random((n, 3)) < 0.2] = MISSING
    table = rows_of(rng.integers(0, 20, n), negatives)
    for order in ORDERS.values():
        made = order(table, seed, epoch, batch)
        assert sorted(made) == list(range(n))
        assert (made == order(table, seed, epoch, batch)).all()


def test_epochs_differ():
    table = shared_rows(200, 20)
    for order in ORDERS.values():
        assert (order(table, 1, 0, 8) != order(table, 1, 1, 8)).any()


def test_clustered_steps_name_fewer_distinct_passages():
    table, batch = shared_rows(400, 40), 8

    def distinct(order) -> float:
        rows = order(table, 3, 0, batch).reshape(-1, batch)
        named = np.concatenate([table.positive[:, None], table.negatives], axis=1)
        return float(np.mean([len(np.unique(named[step])) for step in rows]))

    assert distinct(clustered_order) < 0.6 * distinct(random_order)


def test_the_short_step_stays_last():
    table = shared_rows(21, 3)
    made = clustered_order(table, 0, 0, 8)
    assert len(made) == 21 and sorted(made) == list(range(21))

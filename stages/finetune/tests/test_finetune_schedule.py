"""The schedule fits any data size and any number of processes, keeps what a person set, and says why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_finetune.schedule import ScheduleKeys, plan_schedule

from pipeline.errors import PipelineError

DEFAULT = ScheduleKeys(
    num_epochs=3, max_steps=None, global_batch_size=128, auto_scale_batch=True, local_batch_size=4, learning_rate=1e-5,
    lr_warmup_steps=5, lr_decay_style="cosine", checkpoint_every_steps=100, val_every_steps=100,
)  # fmt: skip

rows = st.integers(1, 5000)
ranks = st.integers(1, 16)
locals_ = st.integers(1, 64)


@given(rows, ranks, locals_, st.integers(1, 300), st.booleans(), st.integers(0, 500), st.integers(1, 5))
def test_any_data_size_gets_a_valid_schedule(n, world, local, batch, scale, warmup, epochs):
    keys = replace(
        DEFAULT, global_batch_size=batch, local_batch_size=local, auto_scale_batch=scale, lr_warmup_steps=warmup,
        num_epochs=epochs,
    )  # fmt: skip
    if n < world:
        with pytest.raises(PipelineError, match="processes"):
            plan_schedule(n, keys, world_size=world)
        return
    plan = plan_schedule(n, keys, world_size=world)
    assert 1 <= plan.global_batch <= n
    assert 1 <= plan.local_batch <= local
    assert plan.global_batch == plan.local_batch * world * plan.accumulation
    assert 0 <= plan.warmup_steps < plan.total_steps
    assert plan.checkpoint_every >= 1 and plan.val_every >= 1
    assert plan.total_steps == plan.steps_per_epoch * epochs
    assert all(plan.explanation)


@given(rows, st.integers(1, 300))
def test_every_row_is_seen_once_per_epoch(n, batch):
    plan = plan_schedule(n, replace(DEFAULT, num_epochs=2, global_batch_size=batch), explicit={"global_batch_size"})
    for epoch in range(2):
        seen = []
        for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
            of, part = plan.position(step)
            assert of == epoch
            seen += range(n)[part]
        assert seen == list(range(n))


@given(rows, locals_)
def test_the_learning_rate_rises_to_its_peak_and_falls_to_one_percent(n, local):
    plan = plan_schedule(n, replace(DEFAULT, local_batch_size=local))
    rates = [plan.learning_rate_at(step) for step in range(plan.total_steps)]
    assert max(rates) == rates[plan.warmup_steps] == DEFAULT.learning_rate
    assert rates[: plan.warmup_steps + 1] == sorted(rates[: plan.warmup_steps + 1])
    assert rates[plan.warmup_steps :] == sorted(rates[plan.warmup_steps :], reverse=True)
    assert min(rates) >= 0.01 * DEFAULT.learning_rate


@pytest.mark.parametrize(
    ("n", "world", "batch"),
    [(810, 1, 64), (500, 1, 60), (500, 4, 64), (40, 1, 16), (10, 1, 8), (3, 1, 3), (100, 8, 16), (1999, 1, 64),
     (2000, 1, 128)],
)  # fmt: skip
def test_small_data_get_a_smaller_batch(n, world, batch):
    assert plan_schedule(n, DEFAULT, world_size=world).global_batch == batch


def test_an_explicit_batch_is_kept():
    keys = replace(DEFAULT, global_batch_size=128)
    assert plan_schedule(100, keys, explicit={"global_batch_size"}).global_batch == 128
    odd = plan_schedule(100, replace(DEFAULT, global_batch_size=30), explicit={"global_batch_size"})
    assert (odd.global_batch, odd.local_batch) == (30, 3)


@pytest.mark.parametrize(
    ("batch", "local", "world", "explicit", "nearest"),
    [(30, 4, 1, {"global_batch_size", "local_batch_size"}, "28 or 32"), (30, 4, 4, {"global_batch_size"}, "28 or 32"),
     (2, 4, 4, {"global_batch_size"}, "4")],
)  # fmt: skip
def test_an_explicit_batch_that_cannot_be_shared_is_refused(batch, local, world, explicit, nearest):
    keys = replace(DEFAULT, global_batch_size=batch, local_batch_size=local)
    with pytest.raises(PipelineError, match=f"global_batch_size={batch}") as caught:
        plan_schedule(500, keys, world_size=world, explicit=explicit)
    assert caught.value.fix == f"set global_batch_size={nearest}"


def test_an_explicit_local_batch_beyond_the_data_is_refused():
    with pytest.raises(PipelineError, match="local_batch_size=64"):
        plan_schedule(20, replace(DEFAULT, local_batch_size=64), explicit={"local_batch_size"})


def test_warm_up_never_reaches_the_end():
    long = replace(DEFAULT, lr_warmup_steps=100)
    assert plan_schedule(100, long).warmup_steps == 21 // 10
    assert plan_schedule(100, long, explicit={"lr_warmup_steps"}).warmup_steps == 20
    assert plan_schedule(1, replace(long, num_epochs=1)).warmup_steps == 0


def test_intervals_shrink_for_short_runs_unless_set():
    plan = plan_schedule(480, DEFAULT)  # 8 steps per epoch
    assert (plan.total_steps, plan.checkpoint_every, plan.val_every) == (24, 8, 8)
    kept = plan_schedule(480, DEFAULT, explicit={"checkpoint_every_steps"})
    assert (kept.checkpoint_every, kept.val_every) == (100, 8)
    assert plan_schedule(480, replace(DEFAULT, max_steps=2)).checkpoint_every == 1


def test_without_an_interval_there_is_one_checkpoint_per_epoch_and_a_validation_with_it():
    plan = plan_schedule(480, replace(DEFAULT, checkpoint_every_steps=None, val_every_steps=None))
    assert (plan.steps_per_epoch, plan.checkpoint_every, plan.val_every) == (8, 8, 8)
    short = plan_schedule(480, replace(DEFAULT, checkpoint_every_steps=None, val_every_steps=2, max_steps=3))
    assert (short.checkpoint_every, short.val_every) == (3, 1)

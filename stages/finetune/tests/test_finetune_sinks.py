"""Training curves go where they were asked to go, and nothing is touched unless they were."""

from __future__ import annotations

import sys

import pytest
from pipeline_finetune.sinks import open_sinks

from pipeline.errors import PipelineError


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("PIPELINE_WANDB", "WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def test_nothing_is_imported_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setenv("WANDB_PROJECT", "lies about in the shell")
    assert open_sinks(tmp_path, "run", {}, tensorboard=False, wandb=None) == []
    assert open_sinks(tmp_path, "run", {}, tensorboard=False, wandb=False) == []
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_events_can_be_read_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (sink,) = open_sinks(tmp_path, "run", {}, tensorboard=True, wandb=None)
    for step in (1, 2):
        sink.write(step, {"train/loss": 1 / step})
    sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(item.step, item.value) for item in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]


def test_wandb_asked_for_without_an_account_is_an_error(tmp_path):
    with pytest.raises(PipelineError, match="WANDB_API_KEY is not set"):
        open_sinks(tmp_path, "run", {}, tensorboard=False, wandb=True)


def test_a_table_in_env_toml_without_an_account_only_warns(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PIPELINE_WANDB", "1")
    assert open_sinks(tmp_path, "run", {}, tensorboard=False, wandb=None) == []


@pytest.mark.slow
def test_wandb_offline_keeps_a_run_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_WANDB", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "p")
    (sink,) = open_sinks(tmp_path, "run-1", {"learning_rate": 1e-5}, tensorboard=False, wandb=None)
    sink.write(1, {"train/loss": 0.5})
    sink.close()
    assert list((tmp_path / "wandb").rglob("*.wandb"))

"""Checkpoints are complete or absent, the newest and the best stay, another run is set aside."""

from __future__ import annotations

import logging
import os

import pytest
import torch
from pipeline_finetune.checkpoint import Checkpoints

from pipeline.errors import PipelineError
from pipeline.run.files import write_text


def write_model(folder):
    write_text(folder / "weights", "w")


def save(checkpoints, step, val=None, fingerprint="a" * 16):
    state = {"fingerprint": fingerprint, "step": step, "epoch": 0, "val": None if val is None else {"val_loss": val}}
    return checkpoints.save(state, {"exp_avg:x": torch.full((2,), float(step))}, write_model)


def steps(checkpoints):
    return [item.step for item in checkpoints.all()]


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step, val in ((1, 0.9), (2, 0.2), (3, 0.5), (4, 0.4), (10, 0.6)):
        saved = save(checkpoints, step, val)
    assert steps(checkpoints) == [2, 4, 10] and checkpoints.best().step == 2
    assert os.readlink(tmp_path / "checkpoints" / "LATEST") == saved.path.name == "epoch_0_step_10"
    assert (tmp_path / "checkpoints" / "LATEST" / "model" / "consolidated" / "weights").is_file()
    assert saved.tensors()["exp_avg:x"].tolist() == [10.0, 10.0]
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(".")]


def test_a_half_written_checkpoint_is_none(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    save(checkpoints, 1)

    def dies(folder):
        write_model(folder)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        checkpoints.save({"fingerprint": "a" * 16, "step": 2, "epoch": 0, "val": None}, {}, dies)
    assert steps(checkpoints) == [1]
    assert checkpoints.open("a" * 16, "auto").step == 1
    assert not list(checkpoints.folder.glob(".tmp-*"))


def test_another_run_is_set_aside_and_never_overwritten(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(logging.getLogger("pipeline"), "info", lambda text, *values: told.append(text % values))
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for _ in range(2):
        save(checkpoints, 1)
        assert checkpoints.open("b" * 16, "auto") is None
    assert steps(checkpoints) == []
    assert len(told) == 2 and "checkpoints.aaaaaaaa" in told[0]
    assert (tmp_path / "checkpoints.aaaaaaaa" / "epoch_0_step_1").is_dir()
    assert (tmp_path / "checkpoints.aaaaaaaa.2" / "epoch_0_step_1").is_dir()


def test_resume_never_starts_anew_and_must_insists(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    with pytest.raises(PipelineError, match="is empty"):
        checkpoints.open("a" * 16, "must")
    save(checkpoints, 3)
    assert checkpoints.open("a" * 16, "must").step == 3
    with pytest.raises(PipelineError, match="other data or settings"):
        checkpoints.open("b" * 16, "must")
    assert steps(checkpoints) == [3], "a refusal moves nothing"
    assert checkpoints.open("a" * 16, "never") is None
    assert steps(checkpoints) == []


def test_without_links_a_text_file_points_at_the_latest(tmp_path, monkeypatch):
    def no_links(*_args, **_more):
        raise OSError("not supported")

    monkeypatch.setattr("pathlib.Path.symlink_to", no_links)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    save(checkpoints, 1)
    assert (tmp_path / "checkpoints" / "LATEST.txt").read_text() == "epoch_0_step_1\n"

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
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, metric="val_loss")
    for step, val in ((1, 0.9), (2, 0.2), (3, 0.5), (4, 0.4), (10, 0.6)):
        saved = save(checkpoints, step, val)
    assert steps(checkpoints) == [2, 4, 10] and checkpoints.best().step == 2
    assert os.readlink(tmp_path / "checkpoints" / "LATEST") == saved.path.name == "epoch_0_step_10"
    assert os.readlink(tmp_path / "checkpoints" / "BEST") == "epoch_0_step_2"
    assert (tmp_path / "checkpoints" / "LATEST" / "model" / "consolidated" / "weights").is_file()
    assert saved.tensors()["exp_avg:x"].tolist() == [10.0, 10.0]
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(".")]


def test_a_half_written_checkpoint_is_none(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, metric="val_loss")
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
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, metric="val_loss")
    for _ in range(2):
        save(checkpoints, 1)
        assert checkpoints.open("b" * 16, "auto") is None
    assert steps(checkpoints) == []
    assert len(told) == 2 and "checkpoints.aaaaaaaa" in told[0]
    assert (tmp_path / "checkpoints.aaaaaaaa" / "epoch_0_step_1").is_dir()
    assert (tmp_path / "checkpoints.aaaaaaaa.2" / "epoch_0_step_1").is_dir()


def test_resume_never_starts_anew_and_must_insists(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, metric="val_loss")
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


def test_without_validation_nothing_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    save(checkpoints, 1)
    assert checkpoints.best() is None and not (checkpoints.folder / "BEST").exists()


@pytest.mark.parametrize(("metric", "best"), [("val_loss", 1), ("val_ndcg10", 2)])
def test_a_loss_is_best_when_low_and_a_quality_when_high(tmp_path, metric, best):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3, metric=metric)
    for step, value in ((1, 0.3), (2, 0.9), (3, 0.5)):
        state = {"fingerprint": "a" * 16, "step": step, "epoch": 0, "val": {metric: value}}
        checkpoints.save(state, {}, write_model)
    assert checkpoints.best().step == best


def test_restoring_an_earlier_checkpoint_sets_the_later_work_aside(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=5)
    for step in (1, 2, 3):
        save(checkpoints, step)
    assert checkpoints.restore("LATEST", "a" * 16).step == 3, "the newest needs no copy"
    assert steps(checkpoints) == [1, 2, 3]
    assert checkpoints.restore("epoch_0_step_2", "a" * 16).step == 2
    assert steps(checkpoints) == [2] and os.readlink(checkpoints.folder / "LATEST") == "epoch_0_step_2"
    aside = Checkpoints(tmp_path / f"checkpoints.{'a' * 8}", keep=5)
    assert steps(aside) == [1, 2, 3], "nothing is deleted"


def test_restoring_from_another_folder_copies_the_checkpoint(tmp_path):
    other = Checkpoints(tmp_path / "other", keep=2)
    theirs = save(other, 7, fingerprint="b" * 16)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    save(checkpoints, 1)
    restored = checkpoints.restore(str(theirs.path), "a" * 16)
    assert restored.step == 7 and steps(checkpoints) == [7] and steps(other) == [7]
    assert restored.tensors()["exp_avg:x"].tolist() == [7.0, 7.0]


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    with pytest.raises(PipelineError, match="holds no checkpoint"):
        checkpoints.restore("LATEST", "a" * 16)
    save(checkpoints, 1)
    with pytest.raises(PipelineError, match="restore_from=epoch_0_step_9") as caught:
        checkpoints.restore("epoch_0_step_9", "a" * 16)
    assert "epoch_0_step_1" in caught.value.fix
    (tmp_path / "half").mkdir()
    with pytest.raises(PipelineError, match="no complete checkpoint"):
        checkpoints.restore(str(tmp_path / "half"), "a" * 16)

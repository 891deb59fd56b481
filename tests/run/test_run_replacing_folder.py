"""A folder is replaced as a whole, or not at all."""

from __future__ import annotations

import pytest

from pipeline.run.files import replacing_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_new_folder_takes_the_old_ones_place(tmp_path):
    target = tmp_path / "onnx"
    for content in ("a", "b"):
        with replacing_folder(target) as folder:
            (folder / content).touch()
            assert target.exists() == (content == "b"), "the old one is served until the new one is complete"
    assert names(target) == ["b"] and names(tmp_path) == ["onnx"]


def test_an_error_leaves_the_old_folder(tmp_path):
    target = tmp_path / "onnx"
    with replacing_folder(target) as folder:
        (folder / "good").touch()
    with pytest.raises(RuntimeError), replacing_folder(target) as folder:
        (folder / "bad").touch()
        raise RuntimeError
    assert names(target) == ["good"] and names(tmp_path) == ["onnx"]


def test_a_death_between_the_two_renames_is_mended(tmp_path):
    (tmp_path / ".onnx.pipeline-old").mkdir()
    (tmp_path / ".onnx.pipeline-old" / "good").touch()
    (tmp_path / ".onnx.pipeline-tmp").mkdir()
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "onnx"):
        raise RuntimeError
    assert names(tmp_path) == ["onnx"] and names(tmp_path / "onnx") == ["good"]


def test_what_somebody_put_aside_is_left_alone(tmp_path):
    for name in ("onnx", "onnx.old", "onnx.tmp", "onnx.bak"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    with replacing_folder(tmp_path / "onnx") as folder:
        (folder / "new").touch()
    assert names(tmp_path) == ["onnx", "onnx.bak", "onnx.old", "onnx.tmp"] and names(tmp_path / "onnx") == ["new"]
    assert names(tmp_path / "onnx.old") == names(tmp_path / "onnx.tmp") == ["mine"]

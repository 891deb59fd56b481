"""Which files of a checkout travel, and when they count as others."""

import io
import subprocess
import tarfile

import pytest

from pipeline.errors import PipelineError
from pipeline.execution import checkout
from pipeline.execution.checkout import content_hash, packed_files, packed_texts, source_files
from pipeline.execution.plan import module_command, rendezvous


def write(root, **texts: str) -> None:
    for name, text in texts.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(files) -> list[str]:
    return [str(name) for name in files]


def test_git_decides_what_is_ours(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    write(tmp_path, tracked="a", gone="b", new="c", output__model="d")
    (tmp_path / ".gitignore").write_text("/output/\n")
    subprocess.run(["git", "-C", tmp_path, "add", "tracked", "gone"], check=True)
    (tmp_path / "gone").unlink()
    assert names(source_files(tmp_path)) == [".gitignore", "new", "tracked"]


def test_without_git_folders_that_are_made_stay_behind(tmp_path):
    write(tmp_path, src__a="a", output__model="b")
    for folder in (".venv", "src/__pycache__", ".ruff_cache", "pipeline.egg-info"):
        write(tmp_path / folder, made="c")
    assert names(source_files(tmp_path)) == ["src/a"]


@pytest.mark.parametrize("with_git", [True, False])
def test_keys_profiles_and_documents_stay_here(tmp_path, with_git):
    write(tmp_path, code="a", data__corpus__mine="b", data__demo__ours="c", sub__env="d")
    write(tmp_path, **{".env": "e", ".env.local": "e", "env.toml": "f"})
    if with_git:
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert names(source_files(tmp_path)) == ["code", "data/demo/ours", "sub/env"]


def test_a_git_that_does_not_answer_is_no_reason_to_send_everything(tmp_path):
    write(tmp_path, **{".git": "no repository", "private": "a"})
    with pytest.raises(PipelineError, match=r"git does not list the files of .*: fatal: ") as caught:
        source_files(tmp_path)
    assert "safe.directory" in caught.value.fix


def test_data_in_a_checkout_is_no_code(tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "_LARGEST", 10)
    write(tmp_path, code="1", data__big="1" * 10)
    with pytest.raises(PipelineError, match="largest: data/big"):
        source_files(tmp_path)


def test_the_hash_follows_path_content_and_right_to_run(tmp_path):
    write(tmp_path, a="1", b="1")
    seen = {content_hash(tmp_path, source_files(tmp_path))}
    assert content_hash(tmp_path, source_files(tmp_path)) in seen
    for change in (
        lambda: write(tmp_path, a="2"),
        lambda: (tmp_path / "b").rename(tmp_path / "c"),
        lambda: (tmp_path / "c").chmod(0o755),
    ):
        change()
        seen.add(content_hash(tmp_path, source_files(tmp_path)))
    assert len(seen) == 4


def test_packed_files_and_texts_come_out_as_they_went_in(tmp_path):
    write(tmp_path, run="x", deep__b="y")
    (tmp_path / "run").chmod(0o755)
    with tarfile.open(fileobj=io.BytesIO(packed_files(tmp_path, source_files(tmp_path)))) as archive:
        assert {entry.name: bool(entry.mode & 0o100) for entry in archive} == {"deep/b": False, "run": True}
    with tarfile.open(fileobj=io.BytesIO(packed_texts({"job/run.sh": "é", "job/note": ""}))) as archive:
        assert archive.extractfile("job/run.sh").read().decode() == "é"
        assert [entry.mode for entry in archive] == [0o755, 0o644]


def test_processes_of_several_nodes_meet_where_the_job_says(monkeypatch):
    assert module_command("stage") == ["python", "-m", "stage"]
    assert "--standalone" in module_command("stage", 2)
    monkeypatch.setenv("PIPELINE_RENDEZVOUS", "n1:20017")
    monkeypatch.setenv("PIPELINE_NODES", "2")
    monkeypatch.setenv("PIPELINE_RENDEZVOUS_ID", "17")
    command = module_command("stage")
    assert "--standalone" not in command
    assert command[-4:] == ["--nproc-per-node", "1", "-m", "stage"]
    assert rendezvous() == [
        "--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "n1:20017", "--rdzv-id", "17",
    ]  # fmt: skip
    monkeypatch.setenv("PIPELINE_NODES", "1")
    assert rendezvous() == []

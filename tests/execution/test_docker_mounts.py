"""Which folders a container sees: relative paths keep their meaning, and outputs land where they would without it."""

from pathlib import Path

import pytest

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.execution.docker_mounts import Mount, host_of, missing_inputs, mounts_of
from pipeline.execution.docker_spec import container_spec
from pipeline.execution.plan import make_plan
from pipeline.execution.profile import Profile
from pipeline.execution.tasks import make_task
from pipeline.home import workspace


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "data" / "corpus").mkdir(parents=True)
    return tmp_path


def profile(*mounts: str, **keys) -> Profile:
    return Profile(name="p", executor="docker", mounts=list(mounts), **{"container_image": "i", "uv": "uv", **keys})


def task(stage: str, *overrides: str):
    return make_task(make_plan(resolve("rerank", stage, "smoke", overrides)), "smoke", overrides)


def test_without_mounts_of_the_profile_outputs_and_inputs_are_where_they_are_here(project):
    mounts = mounts_of([task("sdg", "corpus_dir=./data/corpus")], profile())
    assert Mount(project / "output/smoke/rerank", "/workspace/output/smoke/rerank") in mounts
    assert Mount(project / "data/corpus", "/workspace/data/corpus", read_only=True) in mounts


def test_what_the_profile_mounts_is_mounted_once(project):
    own = profile("./data:/workspace/data", "./output:/workspace/output")
    mounts = mounts_of([task("sdg", "corpus_dir=./data/corpus")], own)
    assert mounts[:2] == [Mount(project / "data", "/workspace/data"), Mount(project / "output", "/workspace/output")]
    assert not [mount for mount in mounts[2:] if mount.there.startswith("/workspace")]


def test_absolute_paths_keep_their_names(project):
    where = project / "elsewhere"
    mounts = mounts_of([task("sdg", f"run_dir={where}/run", f"corpus_dir={project}/data/corpus")], profile())
    assert Mount(where / "run", f"{where}/run") in mounts
    assert Mount(project / "data/corpus", f"{project}/data/corpus", read_only=True) in mounts


def test_a_folder_that_is_replaced_as_a_whole_is_mounted_by_its_parent(project):
    mounts = mounts_of([task("export", "onnx_export_path=./models/onnx")], profile())
    assert Mount(project / "models", "/workspace/models") in mounts


def test_the_parts_of_a_mount(project, monkeypatch):
    monkeypatch.setenv("DATA", "/big")
    home = Path.home()
    mounts = mounts_of([task("prep")], profile("$DATA/x:/a", "${DATA}:/b/", "~/c:/c", "rel:/d:ro", "/e:/e:rw"))
    assert mounts[:5] == [
        Mount(Path("/big/x"), "/a"), Mount(Path("/big"), "/b"), Mount(home / "c", "/c"),
        Mount(project / "rel", "/d", read_only=True), Mount(Path("/e"), "/e"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["data", "./data:workspace", ":/x", "./a:/b:rx", "./a:/b:ro:z"])
def test_a_mount_that_is_none_is_named(text):
    with pytest.raises(PipelineError, match="is not HOST:CONTAINER"):
        mounts_of([task("prep")], profile(text))


def test_a_mount_with_an_unset_variable_is_an_error(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(PipelineError, match=r"mounts: \$NOWHERE is not set"):
        mounts_of([task("prep")], profile("$NOWHERE/x:/x"))


def test_inputs_are_looked_for_where_the_container_would_find_them(project):
    wanted = task("sdg", "corpus_dir=./data/other")
    assert missing_inputs([wanted], profile()) == ["corpus_dir: data/other"]
    (project / "big" / "other").mkdir(parents=True)
    assert missing_inputs([wanted], profile("./big:/workspace/data")) == []
    here = task("sdg", "corpus_dir=./data/corpus")
    assert missing_inputs([here], profile()) == []
    assert missing_inputs([here], profile("./big:/workspace/data")) == [f"corpus_dir: {project}/big/corpus"]


def test_what_an_earlier_stage_makes_is_not_missing():
    assert missing_inputs([task("prep"), task("finetune")], profile()) == []


def test_a_snapshot_of_the_hub_is_mounted_with_the_blobs_that_its_files_link_to(project):
    model = project / "hub" / "models--a--b"
    (model / "snapshots" / "1").mkdir(parents=True)
    (model / "blobs").mkdir()
    (model / "blobs" / "x").touch()
    (model / "snapshots" / "1" / "config.json").symlink_to("../../blobs/x")
    (project / "output").mkdir()
    trained = task("finetune", f"base_model={model}/snapshots/1")
    assert Mount(model, str(model), read_only=True) in mounts_of([trained], profile())


def test_a_link_that_leads_out_of_every_mount_is_named(project):
    (project / "far").mkdir()
    (project / "data" / "corpus" / "more").symlink_to(project / "far")
    wanted = task("sdg", "corpus_dir=./data/corpus")
    with pytest.raises(PipelineError, match=r"corpus/more is a link to .*/far, which the container does not see"):
        mounts_of([wanted], profile())
    assert mounts_of([wanted], profile(f"./far:{project}/far"))
    (project / "data" / "corpus" / "more").unlink()
    (project / "data" / "corpus" / "again").symlink_to("b")
    (project / "data" / "corpus" / "b").touch()
    assert mounts_of([wanted], profile())


def test_two_paths_that_would_be_one_in_the_container_are_refused(project, monkeypatch):
    (project / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(project / "deep" / "er")
    same = task("sdg", "run_dir=../x", "output_dir=../../x/stage", f"corpus_dir={project}/data/corpus")
    with pytest.raises(PipelineError, match="would be /x/stage in the container") as caught:
        mounts_of([same], profile())
    assert f"{project}/x/stage" in caught.value.fix


def test_a_configuration_file_in_the_checkout_is_named_as_it_lies_in_the_container():
    shipped = workspace() / "stages" / "sdg" / "config" / "rerank" / "smoke.yaml"
    own = make_task(make_plan(resolve("rerank", "sdg", str(shipped))), str(shipped), [])
    assert "-c /opt/pipeline/stages/sdg/config/rerank/smoke.yaml" in container_spec([own], profile()).script


def test_the_nearest_mount_counts():
    mounts = [Mount(Path("/big"), "/data"), Mount(Path("/fast"), "/data/hot"), Mount(Path("/x"), "/dat")]
    assert host_of("/data/hot/a", mounts) == Path("/fast/a")
    assert host_of("/data/cold", mounts) == Path("/big/cold")
    assert host_of("/database", mounts) is None


def test_the_code_is_read_only_and_environments_are_kept_for_each_image(project):
    spec = container_spec([task("prep")], profile(container_image="reg.io/a/b:1", state_dir="./state"))
    assert Mount(workspace(), "/opt/pipeline", read_only=True) in spec.mounts
    assert Mount(project / "state", "/opt/pipeline-state") in spec.mounts
    assert spec.environment.plain["PIPELINE_ENV_DIR"] == "/opt/pipeline-state/reg.io-a-b-1/envs"
    assert spec.image == "reg.io/a/b:1" and not (project / "state").exists()


def test_the_token_of_a_login_is_not_mounted(project):
    (project / "hf" / "hub").mkdir(parents=True)
    (project / "hf" / "token").write_text("hf_login")
    hosts = [mount.host for mount in container_spec([task("prep")], profile()).mounts]
    assert project / "hf" / "hub" in hosts and project / "hf" not in hosts


def test_gpus_are_shown_by_the_runtime_when_no_number_is_said():
    asked = container_spec([task("prep")], profile(runtime="nvidia")).environment.plain
    assert asked["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert "NVIDIA_VISIBLE_DEVICES" not in container_spec([task("prep")], profile()).environment.plain


def test_the_environment_of_the_profile_wins_and_startup_commands_come_first():
    own = profile(env_vars={"UV_CACHE_DIR": "/mine"}, startup_commands=["module load x"])
    spec = container_spec([task("prep")], own)
    assert spec.environment.plain["UV_CACHE_DIR"] == "/mine"
    assert spec.script.splitlines()[:2] == ["set -e", "module load x"]
    assert spec.script.splitlines()[-1].startswith("exec uv run --project /opt/pipeline")


def test_different_images_cannot_be_one_container():
    tasks, images = [task("prep"), task("finetune")], {"prep": "other"}
    with pytest.raises(PipelineError, match="different images"):
        container_spec(tasks, profile(images=images))
    assert container_spec(tasks[:1], profile(images=images)).image == "other"
    with pytest.raises(PipelineError, match="has no image for finetune"):
        container_spec(tasks[1:], profile(container_image=None, images=images))


def test_the_home_of_the_person_is_meant_by_a_tilde():
    script = container_spec([task("sdg", "corpus_dir=~/docs")], profile()).script
    assert f"corpus_dir={Path.home()}/docs" in script

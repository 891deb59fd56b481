"""Profiles of env.toml: what they may say, and what the command line changes of them."""

import tomllib
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.execution.profile import Profile
from pipeline.execution.profiles import RESERVED, load_profile
from pipeline.home import workspace
from pipeline.schemas.fields import keys_of


@pytest.fixture
def profile_of(tmp_path: Path, monkeypatch):
    """Write one table as profile `p` and load it."""

    def load(text: str, **overrides: str):
        (tmp_path / "env.toml").write_text(f"[p]\n{text}\n")
        monkeypatch.chdir(tmp_path)
        return load_profile("p", list(overrides.items()))

    return load


def test_every_profile_of_the_example_is_valid(tmp_path, monkeypatch):
    example = workspace() / "env.toml.example"
    monkeypatch.setenv("PIPELINE_ENV_FILE", str(example))
    names = tomllib.loads(example.read_text()).keys() - RESERVED
    profiles = {name: load_profile(name) for name in names}
    assert {profile.executor for profile in profiles.values()} == {"local", "docker", "slurm"}
    assert profiles["my-cluster-long"].host == profiles["my-cluster"].host
    assert profiles["my-cluster-long"].time != profiles["my-cluster"].time


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('executor = "docker"\nimage = "x"', "image: unknown key; did you mean images?"),
        ('executor = "dgxcloud"', "executor='dgxcloud': must be one of local, docker, slurm"),
        ('executor = "docker"', "container_image: executor docker needs an image"),
        ("gpus_per_node = -1", "gpus_per_node=-1: must be >= 0"),
        ('[p.images]\nfinetun = "x"', "finetun is no stage"),
        ('executor = "docker"\ncontainer = "x"\nnodes = 2', "several machines need executor slurm"),
        ('executor = "slurm"\ntunnel = "ssh"', "needs the name of the login node"),
        ('name = "x"', "name: unknown key"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_would_do(profile_of, text, said):
    with pytest.raises(PipelineError) as error:
        profile_of(text)
    assert said in str(error.value) and "'p'" in str(error.value)


def test_all_problems_are_reported_together(profile_of):
    with pytest.raises(PipelineError) as error:
        profile_of('executor = "k8s"\nnodse = 2\nport = 0')
    assert all(name in str(error.value) for name in ("executor", "nodse", "did you mean nodes", "port"))


def test_the_command_line_wins(profile_of):
    profile = profile_of("gpus_per_node = 8\ntime = '1:00:00'", gpus_per_node="4", time="08:00:00", exclusive="true")
    assert (profile.gpus_per_node, profile.time, profile.exclusive) == (4, "08:00:00", True)


def test_a_general_key_of_the_command_line_wins_over_the_special_ones_of_the_profile(profile_of):
    text = "partition = 'a'\nbatch_partition = 'b'\nrun_partition = 'r'\ncontainer_image = 'i'\n[p.images]\nprep = 'j'"
    plain = profile_of(text)
    assert (plain.partition_for(True), plain.partition_for(False)) == ("b", "r")
    assert (plain.image_of("prep"), plain.image_of("eval")) == ("j", "i")
    said = profile_of(text, partition="c", container="k")
    assert (said.partition_for(True), said.partition_for(False)) == ("c", "c")
    assert (said.image_of("prep"), said.image_of("eval")) == ("k", "k")
    both = profile_of(text, **{"partition": "c", "batch_partition": "d", "images.prep": "m", "container_image": "k"})
    assert (both.partition_for(True), both.partition_for(False)) == ("d", "c")
    assert (both.image_of("prep"), both.image_of("eval")) == ("m", "k")


def test_environment_variables_are_filled_in_and_a_missing_one_is_an_error(profile_of, monkeypatch):
    monkeypatch.setenv("BASE", "/data")
    profile = profile_of('env_vars = { A = "${BASE}/x", B = "$BASE", C = "plain" }', **{"env_vars.C": "said"})
    assert profile.environment() == {"A": "/data/x", "B": "/data", "C": "said"}
    monkeypatch.delenv("BASE")
    with pytest.raises(PipelineError, match=r"env_vars\.A: \$BASE is not set"):
        profile.environment()


def test_processes_follow_the_gpus_unless_said(profile_of):
    assert profile_of("gpus_per_node = 4").processes() == 4
    assert profile_of("gpus_per_node = 4\nnproc_per_node = 'gpu'").processes() == "gpu"
    assert profile_of("gpus_per_node = 0").processes() is None
    assert profile_of("").processes() is None


def test_the_documentation_has_every_key():
    text = (workspace() / "docs" / "running-elsewhere.md").read_text()
    for name, item in keys_of(Profile).items():
        assert name == "name" or all(f"`{said}`" in text for said in (name, *item.spec.aliases)), name

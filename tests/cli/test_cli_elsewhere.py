"""`--run`, `--batch`, `--stage` and `run.env.KEY=VALUE` on the command line; nothing is started here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_DOCKER = "import sys; sys.modules['docker'] = None; from pipeline.cli.app import main; main()"
ENV_TOML = """
[wandb]
project = "p"
[box]
executor = "docker"
container_image = "reg.io/image:1"
uv = "uv"
state_dir = "./state"
mounts = ["./data:/workspace/data", "./output:/workspace/output"]
gpus_per_node = 2
[images]
extends = "box"
images = { prep = "other:2" }
[here]
executor = "local"
nproc_per_node = 3
env_vars = { NCCL_DEBUG = "INFO" }
"""


def pipeline(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Without the docker package and without an engine: neither is needed to look."""
    given = {**os.environ, "DOCKER_HOST": "unix:///nowhere.sock", "HF_HOME": str(cwd / "hf"), **environment}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_DOCKER, *arguments], capture_output=True, text=True, cwd=cwd, env=given
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "env.toml").write_text(ENV_TOML)
    (tmp_path / "data" / "corpus").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rerank", "sdg", "--run", "a", "--batch", "b"), "--run and --batch exclude each other"),
        (("rerank", "sdg", "--run", ""), "--run names no profile"),
        (("rerank", "sdg", "--stage"), "--stage needs --run PROFILE or --batch PROFILE"),
        (("rerank", "sdg", "run.env.time=1:00"), "run.env.time changes a profile, but none is named"),
        (("rerank", "deploy", "--run", "box"), "deploy runs on this machine only"),
        (("embed", "run", "--from", "export", "--to", "deploy", "--batch", "box"), "deploy runs on this machine only"),
        (("embed", "sdg", "--run=box"), "no env.toml from"),
    ],
)
def test_rules_that_hold_before_env_toml_is_read(tmp_path: Path, arguments, said):
    shown = pipeline(*arguments, cwd=tmp_path)
    assert shown.returncode == 1 and said in shown.stderr and "fix:" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--batch", "bx"), "did you mean box?"),
        (("--run", "wandb"), "has no profile 'wandb'"),
        (("--run", "box", "run.env.runtme=x"), "runtme: unknown key; did you mean runtime?  [command line]"),
        (("--run", "box", "run.env.gpus_per_node=many"), "gpus_per_node='many': must be a whole number"),
        (("--batch", "here"), 'has executor = "local", which runs here and waits'),
        (("--run", "here", "--stage"), 'has executor = "local", which runs here'),
        (("--run", "box", "--stage"), "--stage puts files on a cluster"),
        (("--run", "box", "--stage", "--dry-run"), "--stage puts files on a cluster"),
        (("--run", "box", "run.env.env_vars.MY-TOKEN=s3cret"), "'MY-TOKEN' is no name of a variable"),
        (("--run", "box", "corpus_dir=./nowhere"), "corpus_dir: nowhere does not exist"),
        (("--run", "box"), "needs the Python package `docker`"),
    ],
)
def test_what_cannot_be_is_one_clear_error(project: Path, arguments, said):
    shown = pipeline("rerank", "sdg", "-c", "smoke", *arguments, cwd=project)
    assert shown.returncode == 1 and said in shown.stderr and "Traceback" not in shown.stderr
    assert "s3cret" not in shown.stdout + shown.stderr
    assert sorted(path.name for path in project.iterdir()) == ["data", "env.toml"]


def test_a_dry_run_shows_image_mounts_environment_and_command_and_writes_nothing(project: Path):
    key = {"NVIDIA_API_KEY": "nvapi-canary"}
    shown = pipeline("rerank", "sdg", "-c", "default", "--run", "box", "--dry-run", cwd=project, **key)
    assert shown.returncode == 0, shown.stderr
    for text in (
        "container of rerank-sdg: reg.io/image:1",
        f"{project}/data -> /workspace/data",
        f"{project}/output -> /workspace/output",
        "NVIDIA_API_KEY (secret, set)",
        "pipeline rerank sdg -c default",
        "gpus 2",
    ):
        assert text in shown.stdout
    assert "canary" not in shown.stdout
    assert sorted(path.name for path in project.iterdir()) == ["data", "env.toml"]


def test_a_dry_run_fails_on_an_input_that_the_container_would_not_find(project: Path):
    shown = pipeline("rerank", "sdg", "-c", "smoke", "corpus_dir=./x", "--batch", "box", "-d", cwd=project)
    assert shown.returncode == 1 and "error: corpus_dir: x does not exist" in shown.stdout


def test_a_run_shows_a_container_for_each_stage_and_one_for_all_when_detached(project: Path):
    chain = ("rerank", "run", "-c", "smoke", "--from", "prep", "--to", "eval", "-d")
    attached = pipeline(*chain, "--run", "box", cwd=project)
    assert attached.returncode == 0, attached.stderr
    assert "prep -> finetune -> eval" in attached.stdout
    assert [line.split(":")[0] for line in attached.stdout.splitlines() if line.startswith("container of")] == [
        f"container of rerank-{stage}" for stage in ("prep", "finetune", "eval")
    ]
    detached = pipeline(*chain, "--batch", "box", cwd=project)
    assert "container of rerank-prep-to-rerank-eval" in detached.stdout
    assert "run --from prep --to eval" in detached.stdout
    mixed = pipeline(*chain, "--batch", "images", cwd=project)
    assert mixed.returncode == 1 and "different images" in mixed.stderr
    assert "container of rerank-prep: other:2" in pipeline(*chain, "--run", "images", cwd=project).stdout


@pytest.mark.parametrize(
    ("stage", "given", "shown_as"),
    [
        ("finetune", [], " nproc_per_node=2"),
        ("prep", [], " nproc_per_node=2"),
        ("finetune", ["nproc_per_node=1"], " nproc_per_node=1"),
        ("finetune", ["run.env.gpus_per_node=4"], " nproc_per_node=4"),
        ("sdg", [], ""),
        ("eval", [], " nproc_per_node=2"),
        ("export", [], ""),
    ],
)
def test_only_stages_that_take_several_processes_are_told_how_many(project: Path, stage, given, shown_as):
    shown = pipeline("rerank", stage, "-c", "smoke", *given, "--run", "box", "-d", cwd=project)
    command = shown.stdout.splitlines()[-1] if shown.returncode == 0 else shown.stdout
    assert command.count("nproc_per_node") == bool(shown_as) and command.strip().endswith(shown_as)


def test_a_local_profile_runs_here_with_its_processes(project: Path):
    shown = pipeline("rerank", "finetune", "-c", "smoke", "--run", "here", "-d", cwd=project)
    assert "--nproc-per-node 3" in shown.stdout and "container" not in shown.stdout
    chain = pipeline(
        "rerank", "run", "-c", "smoke", "--from", "prep", "--to", "eval", "--run", "here", "-d", cwd=project
    )
    assert chain.stdout.count("--nproc-per-node 3") == 3, chain.stdout

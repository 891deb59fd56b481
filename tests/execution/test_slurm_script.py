"""The text of Slurm jobs, from a profile and a command line; nothing is contacted."""

import dataclasses
import subprocess

import pytest

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.execution.plan import make_plan
from pipeline.execution.profile import Profile
from pipeline.execution.slurm import SlurmExecutor
from pipeline.execution.slurm_jobs import files_of, jobs_of, needed_inputs, places_of
from pipeline.execution.slurm_script import Job, Places, cleanup_script, enroot_image, run_script, sbatch_script
from pipeline.execution.tasks import make_task
from pipeline.home import workspace

PLACES = Places("/shared/jobs", "/shared/jobs", "/shared/jobs/code/abc")
CLUSTER = Profile(name="cluster", executor="slurm", remote_job_dir="/shared/jobs")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """A working directory without data, and no keys that happen to be set."""
    monkeypatch.chdir(tmp_path)
    for name in ("NVIDIA_API_KEY", "HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def task(stage: str, *overrides: str, config: str = "smoke", chained: bool = False):
    plan = make_plan(resolve("embed", stage, config, overrides))
    return make_task(plan, config, overrides, chained=chained)


def jobs(profile: Profile, *tasks, detached: bool = False) -> list[Job]:
    return jobs_of(profile, tasks, places_of(profile, tasks, "abc"), detached, "/opt/uv")


def directives(job: Job) -> list[str]:
    return [line.removeprefix("#SBATCH --") for line in sbatch_script(job).splitlines() if line.startswith("#SBATCH")]


def test_every_key_of_a_profile_becomes_its_directive():
    profile = dataclasses.replace(
        CLUSTER,
        account="science",
        qos="high",
        time="08:00:00",
        gpus_per_node=4,
        cpus_per_task=16,
        mem="64G",
        exclusive=True,
        partition="any",
    )
    said = directives(jobs(profile, task("sdg"))[0])
    wanted = ["account=science", "qos=high", "time=08:00:00", "gpus-per-node=4", "cpus-per-task=16", "mem=64G"]
    assert set(said) >= {*wanted, "exclusive", "partition=any", "kill-on-invalid-dep=yes", "no-requeue"}


def test_what_a_profile_leaves_out_is_no_directive():
    said = " ".join(directives(jobs(CLUSTER, task("sdg"))[0]))
    assert "time=04:00:00" in said
    assert not any(name in said for name in ("gpus", "account", "partition", "mem", "exclusive", "None"))


@pytest.mark.parametrize(("detached", "partition"), [(False, "short"), (True, "long")])
def test_the_partition_depends_on_who_waits(detached, partition):
    profile = dataclasses.replace(CLUSTER, partition="any", run_partition="short", batch_partition="long")
    assert f"partition={partition}" in directives(jobs(profile, task("sdg"), detached=detached)[0])


def test_only_training_is_spread_over_nodes():
    profile = dataclasses.replace(CLUSTER, nodes=2)
    prep, finetune = jobs(profile, task("prep"), task("finetune"))
    assert "PIPELINE_RENDEZVOUS" not in sbatch_script(prep)
    assert "nodes=1" in directives(prep)
    assert "nodes=2" in directives(finetune)
    assert "srun --nodes=2 --ntasks=2" in sbatch_script(finetune)


def test_a_container_sees_the_shared_folder_the_mounts_and_uv(monkeypatch):
    profile = dataclasses.replace(
        CLUSTER, container_image="nvcr.io/nvidia/pytorch:25.01-py3", mounts=["$DATA:/data", "./corpus:/corpus"]
    )
    monkeypatch.setenv("DATA", "/data")
    job = jobs(profile, task("sdg"))[0]
    script = sbatch_script(job)
    folder = f"{PLACES.code}/.venvs/nvcr.io-nvidia-pytorch-25.01-py3"
    assert f"PIPELINE_ENV_DIR={folder} UV_PROJECT_ENVIRONMENT={folder}/cli" in run_script(job)
    assert "only-managed" in run_script(job) and "only-managed" not in run_script(jobs(CLUSTER, task("sdg"))[0])
    assert "--container-image=nvcr.io#nvidia/pytorch:25.01-py3" in script
    mounts = "/data:/data,/shared/jobs/corpus:/corpus,/opt/uv:/opt/uv,/shared/jobs:/shared/jobs"
    assert f"--container-mounts={mounts}" in script
    assert "--container-workdir=/shared/jobs" in script
    assert "--chdir" not in script


def test_a_home_is_that_of_this_machine_alone():
    with pytest.raises(PipelineError, match="mounts: '~/data:/data': ~ is the home of this machine"):
        jobs(dataclasses.replace(CLUSTER, mounts=["~/data:/data"]), task("sdg"))
    with pytest.raises(PipelineError, match="sdg: corpus_dir=~/docs: ~ is the home of this machine"):
        SlurmExecutor(CLUSTER).describe([task("sdg", "corpus_dir=~/docs")], detached=True)


def test_the_job_that_deletes_secrets_asks_for_what_its_partition_wants():
    profile = dataclasses.replace(CLUSTER, gpus_per_node=4, mem="64G", partition="any")
    script = cleanup_script(["/a"], jobs(profile, task("sdg"))[0].options)
    assert {"#SBATCH --gpus-per-node=4", "#SBATCH --mem=64G", "#SBATCH --partition=any"} <= set(script.splitlines())


def test_a_secret_in_a_file_of_ones_own_is_refused(tmp_path, monkeypatch):
    (tmp_path / "my.yaml").write_text("extends: smoke\nnvidia_api_key: nvapi-canary\n")
    with pytest.raises(PipelineError, match=r"my\.yaml holds a secret \(nvidia_api_key\)") as caught:
        SlurmExecutor(CLUSTER).describe([task("sdg", config="./my.yaml")], detached=True)
    assert "canary" not in str(caught.value) and "export NVIDIA_API_KEY" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("ubuntu:24.04", "ubuntu:24.04"),
        ("nvidia/cuda:12", "nvidia/cuda:12"),
        ("docker://nvcr.io/nvidia/cuda:12", "nvcr.io#nvidia/cuda:12"),
        ("localhost:5000/mine", "localhost:5000#mine"),
        ("nvcr.io#nvidia/cuda:12", "nvcr.io#nvidia/cuda:12"),
        ("/images/mine.sqsh", "/images/mine.sqsh"),
    ],
)
def test_images_as_the_container_plugin_reads_them(name, read):
    assert enroot_image(name) == read


def test_both_scripts_are_bash(tmp_path):
    profile = dataclasses.replace(
        CLUSTER, nodes=2, startup_commands=["module load cuda"], env_vars={"GREETING": "it's $HOME", "A_TOKEN": "x"}
    )
    job = jobs(profile, task("finetune", "base_model=it's here"))[0]
    for text in (run_script(job), sbatch_script(job), cleanup_script(["/a b"], job.options)):
        assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).stderr == ""


def test_a_secret_is_in_no_text(monkeypatch, tmp_path):
    monkeypatch.setenv("NVIDIA_API_KEY", "nvapi-secret")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    asked = task("sdg", f"corpus_dir={corpus}", "nvidia_api_key=nvapi-secret", config="default")
    shown = SlurmExecutor(CLUSTER).describe([asked], detached=True)
    assert "nvapi" not in shown
    assert "NVIDIA_API_KEY (secret, set)" in shown
    assert not any("nvapi" in text for text in files_of(jobs(CLUSTER, asked)[0], asked).values())


def test_stages_that_share_outputs_need_a_shared_folder():
    bare = Profile(name="bare", executor="slurm")
    with pytest.raises(PipelineError, match=r"neither remote_job_dir nor env_vars\.NEMO_RUN_DIR"):
        places_of(bare, [task("sdg", chained=True), task("prep", chained=True)], "abc")
    run_dir = dataclasses.replace(bare, env_vars={"NEMO_RUN_DIR": "/shared/run"})
    assert places_of(run_dir, [task("sdg"), task("prep")], "abc").work == "/shared/run"


@pytest.mark.parametrize("path", ["jobs", "/with space", "/${HOME}/jobs"])
def test_a_path_that_scripts_cannot_hold_is_refused(path):
    with pytest.raises(PipelineError, match="remote_job_dir"):
        places_of(dataclasses.replace(CLUSTER, remote_job_dir=path), [task("sdg")], "abc")


def test_inputs_are_asked_for_unless_an_earlier_job_makes_them():
    assert [item.key for item in needed_inputs([task("prep")])] == ["sdg_input_path"]
    assert needed_inputs([task("sdg"), task("prep")]) == []


def test_a_configuration_file_is_named_as_it_lies_there(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "base.yaml").write_text("extends: smoke\n")
    (tmp_path / "deep" / "own.yaml").write_text("extends: ../base.yaml\n")
    own = task("sdg", config="deep/own.yaml")
    job = jobs(CLUSTER, own)[0]
    assert job.arguments[job.arguments.index("-c") + 1] == f"{job.folder}/config/deep/own.yaml"
    name = job.folder.rpartition("/")[2]
    assert {f"{name}/config/deep/own.yaml", f"{name}/config/base.yaml"} <= set(files_of(job, own))


def test_a_configuration_of_the_checkout_is_that_of_the_uploaded_one():
    shipped = workspace() / "stages" / "sdg" / "config" / "embed" / "smoke.yaml"
    job = jobs(CLUSTER, task("sdg", config=str(shipped)))[0]
    assert f"{PLACES.code}/stages/sdg/config/embed/smoke.yaml" in job.arguments

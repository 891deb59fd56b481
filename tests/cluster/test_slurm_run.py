"""Jobs on a real Slurm cluster (`tests/cluster/services/slurm.sh up DIR`), here and through a real ssh server.

The stage itself is a stand-in: a `uv` of ours that runs a few lines of bash. What is tested is the way there.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FAKE_UV = """#!/bin/bash
[ "$1" != --version ] || { echo "uv 0.9.99"; exit; }
. "$(dirname "$0")/stage.sh"
"""


def answered(command: list[str]) -> str:
    """What a command prints; nothing when it does not come to an end, as without a controller."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    except subprocess.TimeoutExpired:
        return ""


@pytest.fixture(scope="module", autouse=True)
def slurm():
    if not shutil.which("sbatch") or not answered(["sinfo", "--noheader", "--format=%D"]):
        pytest.skip("no Slurm cluster answers: .ci/services starts one and prints SLURM_CONF")


@pytest.fixture(params=["here", "ssh"])
def reached(request, tmp_path, monkeypatch):
    """The profile's lines for each way to a cluster."""
    if request.param == "here":
        return []
    port = os.environ.get("PIPELINE_TEST_SSH_PORT")
    if not port:
        pytest.skip("no ssh server of ours: .ci/services starts one and prints PIPELINE_TEST_SSH_PORT")
    wrapper = tmp_path / "bin" / "ssh"  # OpenSSH looks for known hosts in the password file's home, not in $HOME
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -o UserKnownHostsFile={tmp_path}/known_hosts "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    identity = os.environ["PIPELINE_TEST_SSH_IDENTITY"]
    return ['tunnel = "ssh"', 'host = "127.0.0.1"', f"port = {port}", f'identity = "{identity}"']


class Cluster:
    """A folder with an env.toml whose profile `cluster` runs a stand-in stage."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs = folder, folder / "jobs"
        self.uv = folder / "fake-uv"
        self.uv.write_text(FAKE_UV)
        self.uv.chmod(0o755)

    def profile(self, stage: str, *lines: str) -> None:
        """`stage` is what the stand-in does: bash."""
        (self.folder / "stage.sh").write_text(stage + "\n")
        head = ["[cluster]", 'executor = "slurm"', f'remote_job_dir = "{self.jobs}"', f'uv = "{self.uv}"']
        (self.folder / "env.toml").write_text("\n".join([*head, *lines]) + "\n")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, seconds: float = 120) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=seconds)
        return process.returncode, out, err

    def secrets(self) -> list[Path]:
        return list(self.jobs.glob("*/.secrets.env"))


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def eventually(holds, what: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"still not so: {what}"
        time.sleep(0.2)


def ended(job_id: str) -> bool:
    states = answered(["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job_id}"]).split()
    return not set(states) & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}


def job_ids(text: str) -> list[str]:
    return [line.split()[-1] for line in text.splitlines() if line.startswith("submitted ")]


def test_an_attached_stage_shows_its_streams_and_ends_with_its_exit_code(cluster, reached):
    cluster.profile('echo "out of $PWD"; echo "äöü" >&2; echo "${@: -3}"; exit 3', *reached)
    code, out, err = cluster.run("embed", "sdg", "-c", "smoke", "--run", "cluster", "seed=7")
    assert code == 3, err
    assert f"out of {cluster.jobs}" in out
    assert "äöü" in err
    assert "-c smoke seed=7" in out


def test_a_run_goes_through_its_stages_in_order(cluster):
    cluster.profile('echo "$*" | grep -o -- "--to [a-z]*"')
    code, out, err = cluster.run("embed", "run", "-c", "smoke", "--from", "sdg", "--to", "prep", "--run", "cluster")
    assert code == 0, err
    assert out.splitlines() == ["--to sdg", "--to prep"]


def stage_script(marker: Path, failing: str) -> str:
    """A stage that leaves its name in `marker`; the one named `failing` fails."""
    return f'echo "$*" | grep -o -- "--to [a-z]*" >> {marker}; ! echo "$*" | grep -q -- "--to {failing}"'


def test_after_a_failure_no_later_stage_runs_and_nothing_hangs(cluster, tmp_path):
    cluster.profile(stage_script(tmp_path / "ran", failing="sdg"))
    code, out, err = cluster.run("embed", "run", "-c", "smoke", "--from", "sdg", "--to", "prep", "--run", "cluster")
    assert code == 1, out + err
    assert (tmp_path / "ran").read_text() == "--to sdg\n"


def test_detached_jobs_wait_for_each_other_and_leave_no_secrets(cluster, tmp_path, reached):
    marker = tmp_path / "ran"
    secret = ["[cluster.env_vars]", 'SERVICE_TOKEN = "not-to-be-seen"']
    cluster.profile(stage_script(marker, failing="prep"), *reached, *secret)
    stages = ["--from", "sdg", "--to", "finetune"]
    code, out, err = cluster.run("embed", "run", "-c", "smoke", *stages, "--batch", "cluster")
    assert code == 0, err
    ids = job_ids(out)
    assert len(ids) == 3
    assert f"scancel {' '.join(ids)}" in out
    eventually(lambda: all(ended(job_id) for job_id in ids), "every job ended")
    assert marker.read_text() == "--to sdg\n--to prep\n"
    eventually(lambda: not cluster.secrets(), "the secrets are deleted")


def test_a_secret_reaches_the_stage_and_nothing_else(cluster, reached, monkeypatch):
    monkeypatch.setenv("NVIDIA_API_KEY", "nvapi-not-to-be-seen")
    cluster.profile(
        'echo "length ${#NVIDIA_API_KEY}"; scontrol show job $SLURM_JOB_ID; scontrol write batch_script $SLURM_JOB_ID -'
        "; ls -A */; tr '\\0' ' ' < /proc/$$/cmdline",
        *reached,
    )
    (cluster.folder / "corpus").mkdir()
    corpus = f"corpus_dir={cluster.folder}/corpus"
    code, out, err = cluster.run("rerank", "sdg", corpus, "--run", "cluster")
    assert code == 0, err
    assert "length 20" in out
    assert "nvapi" not in out + err
    assert cluster.secrets() == []
    written = [path for path in cluster.jobs.rglob("*") if path.is_file() and "code" not in path.parts]
    assert written
    assert not [path for path in written if b"nvapi-not" in path.read_bytes()]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_jobs(cluster, number, code):
    cluster.profile("echo started; sleep 300")
    process = cluster.start("embed", "sdg", "-c", "smoke", "--run", "cluster")
    assert process.stdout.readline() == "started\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    job_id = err.split(" is job ")[1].split(";")[0]
    eventually(lambda: ended(job_id), "the job is cancelled")


def test_a_job_that_somebody_cancels_ends_the_command(cluster):
    cluster.profile("scancel $SLURM_JOB_ID; sleep 300")
    code, _, err = cluster.run("embed", "sdg", "-c", "smoke", "--run", "cluster")
    assert code != 0
    assert "CANCELLED: somebody cancelled it" in err


def test_the_nodes_of_a_training_job_know_where_to_meet(cluster):
    fake = '[ "$1" = sync ] || echo "node $SLURM_PROCID of $PIPELINE_NODES meets at $PIPELINE_RENDEZVOUS"'
    cluster.profile(fake, "nodes = 2", "gpus_per_node = 1")
    data = cluster.jobs / "rows.json"
    cluster.jobs.mkdir()
    data.write_text("{}")
    overrides = [f"train_data_path={data}", "val_data_path=null"]
    code, out, err = cluster.run("embed", "finetune", "-c", "smoke", *overrides, "--run", "cluster")
    assert code == 0, err
    lines = sorted(line for line in out.splitlines() if line.startswith("node "))
    assert [line.split(" meets ")[0] for line in lines] == ["node 0 of 2", "node 1 of 2"]
    assert len({line.split(" meets ")[1] for line in lines}) == 1


def test_stage_only_puts_files_there(cluster, reached):
    cluster.profile("echo by hand: ${@: -2}", *reached)
    code, out, err = cluster.run("embed", "sdg", "-c", "smoke", "--run", "cluster", "--stage")
    assert code == 0, err
    folder = next(line.removeprefix("  cd ") for line in out.splitlines() if line.startswith("  cd "))
    assert answered(["squeue", "--noheader", "--name=embed-sdg"]) == ""
    assert answered([f"{folder}/run.sh"]) == "by hand: -c smoke"
    assert Path(folder, "job.sbatch").is_file()


def test_a_configuration_of_ones_own_goes_along(cluster):
    (cluster.folder / "base.yaml").write_text("extends: smoke\nseed: 5\n")
    (cluster.folder / "own.yaml").write_text("extends: base\nnum_pairs: 3\n")
    cluster.profile('cat "${@: -1}" "$(dirname "${@: -1}")/base.yaml"')
    code, out, err = cluster.run("embed", "sdg", "-c", "own.yaml", "--run", "cluster")
    assert code == 0, err
    assert "num_pairs: 3" in out
    assert "seed: 5" in out


def test_an_input_that_is_not_there_is_said_before_anything_is_submitted(cluster):
    cluster.profile("echo never")
    code, _, err = cluster.run("embed", "prep", "-c", "smoke", "--batch", "cluster")
    assert code == 1
    assert "sdg_input_path: output/smoke/embed/stage0_sdg" in err
    assert not list(cluster.jobs.glob("embed-prep-*"))


def test_what_slurm_refuses_is_told_and_leaves_nothing(cluster):
    cluster.profile("echo never", 'partition = "no-such-partition"')
    code, _, err = cluster.run("embed", "sdg", "-c", "smoke", "--batch", "cluster")
    assert code == 1
    assert "invalid partition" in err
    assert "sinfo" in err


def test_a_uv_that_is_none_is_told(cluster):
    cluster.profile("echo never")
    cluster.uv.write_text("#!/bin/sh\necho uv 0.4.0\n")
    code, _, err = cluster.run("embed", "sdg", "-c", "smoke", "--batch", "cluster")
    assert code == 1
    assert f"{cluster.uv} is no uv 0.9 or newer" in err


@pytest.mark.slow
@pytest.mark.e2e
def test_a_real_stage_runs_in_the_working_directory_of_the_jobs(cluster):
    cluster.profile("", 'time = "00:20:00"')
    text = (cluster.folder / "env.toml").read_text()
    (cluster.folder / "env.toml").write_text(text.replace(str(cluster.uv), shutil.which("uv")))
    code, out, err = cluster.run("embed", "sdg", "-c", "smoke", "preview=true", "--run", "cluster", seconds=600)
    assert code == 0, out + err
    assert list(cluster.jobs.glob("output/smoke/embed/stage0_sdg/**/*.json*"))

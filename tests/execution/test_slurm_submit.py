"""What a submission says when the far side refuses or cannot be reached; nothing is contacted."""

import subprocess
from pathlib import Path

import pytest

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.execution import slurm_submit
from pipeline.execution.interrupts import Interrupts
from pipeline.execution.plan import make_plan
from pipeline.execution.profile import Profile
from pipeline.execution.remote_host import Host, HostUnreachable
from pipeline.execution.slurm_jobs import jobs_of, places_of
from pipeline.execution.slurm_submit import Submission
from pipeline.execution.tasks import make_task

CLUSTER = Profile(name="cluster", executor="slurm", remote_job_dir="/shared", env_vars={"MY_TOKEN": "canary"})


class FakeHost(Host):
    """Answers each job's sbatch from `SBATCH` (exit code, output, errors), refuses the clean-up, and is gone then."""

    def run(self, script: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        if "sbatch --parsable --dependency=afterany" in script:
            return subprocess.CompletedProcess([], 1, b"", b"sbatch: error: no GPUs asked for")
        if "sbatch --parsable" in script:
            return subprocess.CompletedProcess([], *SBATCH.pop(0))
        if "scancel" in script:
            raise HostUnreachable("cannot reach login")
        return subprocess.CompletedProcess([], 0, b"", b"")


SBATCH: list[tuple[int, bytes, bytes]] = []


@pytest.fixture
def submission(tmp_path, monkeypatch) -> Submission:
    monkeypatch.chdir(tmp_path)
    tasks = [
        make_task(make_plan(resolve("embed", stage, "smoke")), "smoke", [], chained=True) for stage in ("sdg", "prep")
    ]
    made = Submission(FakeHost("login", ()), CLUSTER, tasks, detached=True)
    made.jobs = jobs_of(CLUSTER, tasks, places_of(CLUSTER, tasks, "abc"), True, "uv")
    monkeypatch.setattr(made, "upload", lambda with_secrets: None)
    return made


def test_secrets_lie_with_their_own_job(submission):
    assert [job.secret_file for job in submission.jobs] == [f"{job.folder}/.secrets.env" for job in submission.jobs]


def test_jobs_go_on_without_the_one_that_deletes_secrets(submission, caplog):
    SBATCH[:] = [(0, b"17\n", b""), (0, b"18\n", b"")]
    with Interrupts() as interrupts:
        submission.submit(interrupts)
    said = caplog.text
    assert submission.ids == ["17", "18"]
    assert "warning: jobs that never start leave /shared/" in said and "no GPUs asked for" in said


def test_the_first_error_and_the_jobs_are_told_when_nothing_can_be_cancelled(submission, caplog):
    SBATCH[:] = [(0, b"17\n", b""), (1, b"", b"sbatch: error: invalid account")]
    with Interrupts() as interrupts, pytest.raises(PipelineError, match="invalid account"):
        submission.submit(interrupts)
    assert "cannot reach login\njobs that may go on (scancel): 17" in caplog.text


def test_a_configuration_that_git_ignores_does_not_travel(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_submit, "workspace", lambda: tmp_path)
    monkeypatch.setattr(slurm_submit, "source_files", lambda root: [Path("shipped.yaml")])
    own = tmp_path / "my.yaml"
    own.write_text("extends: smoke\n")
    task = make_task(make_plan(resolve("embed", "sdg", str(own))), str(own), [])
    with pytest.raises(PipelineError, match=r"my\.yaml lies in the checkout, but does not travel with it"):
        Submission(FakeHost("login", ()), CLUSTER, [task], detached=True).upload(with_secrets=True)

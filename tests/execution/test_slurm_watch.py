"""How a job's end is told apart, with a stand-in for the machine that Slurm runs on."""

import os
import shutil
import signal
import subprocess

import pytest

from pipeline.errors import PipelineError
from pipeline.execution import slurm_watch
from pipeline.execution.interrupts import Interrupted, Interrupts
from pipeline.execution.remote_host import Host, HostUnreachable, reach, ssh_command
from pipeline.execution.slurm_script import Job, Places
from pipeline.execution.slurm_watch import Follower


class FakeHost(Host):
    """Runs the scripts here, with `squeue` and `sacct` that say what the test wants."""

    def run(self, script: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        stand_ins = f"squeue() {{ {SAID['squeue']}; }}; sacct() {{ {SAID['sacct']}; }}\n"
        return super().run(stand_ins + script, data)


SAID: dict[str, str] = {}


@pytest.fixture
def follower(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_watch, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(slurm_watch, "_CHUNK", 7)
    SAID.update(squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; false", sacct="false")
    (tmp_path / "logs").mkdir()
    folder = str(tmp_path)
    job = Job("embed-sdg", "sdg", folder, [], Places(folder, folder, folder))
    return Follower(FakeHost("here", ("bash", "-c")), job, "17")


def leave(follower: Follower, code: str | None, out: str = "", err: str = "") -> None:
    for path, text in ((follower.job.stdout, out), (follower.job.stderr, err), (follower.job.exit_file, code)):
        if text is not None:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)


def test_long_logs_come_whole_and_in_their_own_streams(follower, capsys):
    leave(follower, "0\n", out="äöü" * 20, err="warning\n" * 3)
    assert follower.follow() == 0
    seen = capsys.readouterr()
    assert seen.out == "äöü" * 20
    assert seen.err == "warning\n" * 3


def test_the_code_that_the_job_left_is_the_stages(follower):
    leave(follower, "7\n")
    SAID["squeue"] = "echo FAILED NonZeroExitCode"
    assert follower.follow() == 7


@pytest.mark.parametrize("state", ["TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "CANCELLED"])
def test_an_end_from_outside_is_named(follower, caplog, state):
    SAID["squeue"] = f"echo {state} Reason"
    assert follower.follow() == 1
    assert f"job 17 (embed-sdg): {state}: " in caplog.text


def test_accounts_answer_for_a_job_that_the_queue_forgot(follower, caplog):
    SAID["sacct"] = "echo CANCELLED by 0"
    assert follower.follow() == 1
    assert "somebody cancelled it" in caplog.text


def test_a_job_that_nobody_knows_does_not_hang(follower):
    with pytest.raises(PipelineError, match="Slurm knows nothing of job 17"):
        follower.follow()


def test_a_finished_job_without_a_code_succeeded(follower):
    SAID["squeue"] = "echo COMPLETED None"
    assert follower.follow() == 0


def test_a_broken_connection_ends_following_but_not_the_job(follower, monkeypatch):
    def broken(*_: object) -> None:
        raise HostUnreachable("cannot reach login")

    monkeypatch.setattr(FakeHost, "run", broken)
    with pytest.raises(PipelineError, match="job 17 goes on"):
        follower.follow()


def test_a_controller_that_is_away_for_a_while_is_asked_again(follower, tmp_path):
    SAID["squeue"] = f"test -e {tmp_path}/back && echo COMPLETED || {{ touch {tmp_path}/back; echo busy >&2; false; }}"
    assert follower.follow() == 0
    (tmp_path / "back").unlink()
    with pytest.raises(HostUnreachable, match="squeue does not answer: busy"):
        slurm_watch.state_of(follower.host, "17")


def test_a_controller_that_stays_away_says_that_the_job_goes_on(follower):
    SAID["squeue"] = "echo 'Unable to contact slurm controller' >&2; false"
    with pytest.raises(PipelineError, match="Unable to contact slurm controller; job 17 goes on"):
        follower.follow()


def test_the_exit_code_counts_when_the_controller_is_away(follower):
    SAID["squeue"] = "echo 'Unable to contact slurm controller' >&2; false"
    leave(follower, "7\n")
    assert follower.follow() == 7


def test_ssh_never_asks_and_names_the_profiles_identity():
    command = ssh_command("login", "me", "/keys/id", 2222)
    assert command[-2:] == ["--", "me@login"]
    assert {"BatchMode=yes", "ConnectTimeout=30", "StrictHostKeyChecking=accept-new"} <= set(command)
    assert command[command.index("-i") + 1] == "/keys/id"
    assert command[command.index("-p") + 1] == "2222"


@pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh client on this machine")
def test_a_host_that_does_not_answer_is_named():
    with (
        reach("ssh", "127.0.0.1", "nobody", port=1) as host,
        pytest.raises(HostUnreachable, match="cannot reach nobody@127"),
    ):
        host.run("true")


def test_a_machine_without_the_shell_says_so():
    with pytest.raises(PipelineError, match="there is no no-such-shell on this machine"):
        Host("login", ("no-such-shell",), remote=True).run("true")


def test_what_a_login_prints_is_no_answer(tmp_path):
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\necho Welcome\nexec sh -c "$1"\n')
    shell.chmod(0o755)
    assert Host("login", (str(shell),), remote=True).must("echo 'it''s me'") == "its me\n"


def test_what_is_submitted_sees_no_secret_of_ours(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "hidden")
    monkeypatch.setenv("SOME_SETTING", "shown")
    with reach(None) as host:
        assert host.must('echo "$SOME_SETTING$SOME_API_KEY"') == "shown\n"


def test_a_signal_waits_for_the_end_of_a_held_step():
    steps = []
    with pytest.raises(Interrupted) as caught, Interrupts() as interrupts:
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("went on")
        steps.append("never")
    assert steps == ["went on"]
    assert caught.value.code == 143


def test_a_held_step_after_a_signal_ends_in_peace_and_a_closed_terminal_is_a_signal():
    with Interrupts() as interrupts:
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGHUP)
        with interrupts.held():
            steps = ["cleared up"]
    assert (steps, caught.value.code) == (["cleared up"], 129)

"""`--run` and `--batch` with executor docker, in real containers.

Most tests put a small script in the place of uv: it says what it was told and does what the profile's variables say.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CANARY = "nvapi-canary-4711"
FAKE_UV = """#!/bin/sh
echo "$@" >> calls
echo "key=${NVIDIA_API_KEY:-none} home=$HOME"
echo "to stderr" >&2
case "$*" in *"${FAIL_AT:-nothing}"*) exit 7;; esac
if [ -n "${WAIT:-}" ]; then
    trap 'echo put down > put_down; exit 0' TERM
    echo started
    while :; do sleep 0.1; done
fi
"""


@pytest.fixture
def project(tmp_path: Path, python_image) -> Path:
    """A folder with env.toml, documents, and a stand-in for uv that writes to ./there."""
    (tmp_path / "data" / "corpus").mkdir(parents=True)
    (tmp_path / "data" / "corpus" / "a.txt").write_text("A document.\n")
    (tmp_path / "there").mkdir()
    fake = tmp_path / "fake" / "uv"
    fake.parent.mkdir()
    fake.write_text(FAKE_UV.replace("calls", "/there/calls").replace("> put_down", "> /there/put_down"))
    fake.chmod(0o755)
    (tmp_path / "env.toml").write_text(
        f'[box]\nexecutor = "docker"\ncontainer_image = "{python_image}"\nuv = "/fake/uv"\nstate_dir = "./state"\n'
        'mounts = ["./fake:/fake:ro", "./there:/there"]\n'
    )
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}, **more}


def pipeline(project: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=project, env=environment(**more), timeout=120
    )


def calls(project: Path) -> list[str]:
    path = project / "there" / "calls"
    return path.read_text().splitlines() if path.exists() else []


def containers(engine, project: Path) -> list:
    """What was started for this project and is still there, running or not."""
    ours = engine.containers.list(all=True, filters={"label": "pipeline.task"}, ignore_removed=True)
    return [item for item in ours if any(mount["Source"].startswith(f"{project}/") for mount in item.attrs["Mounts"])]


def test_a_stage_runs_our_own_command_line_in_a_container_and_leaves_nothing_behind(project: Path, docker_engine):
    ran = pipeline(project, "rerank", "sdg", "-c", "smoke", "num_pairs=2", "--run", "box")
    assert ran.returncode == 0, ran.stderr
    home = "run --project /opt/pipeline --frozen --no-dev pipeline"
    assert calls(project) == [f"{home} rerank sdg -c smoke num_pairs=2"]
    assert "key=none" in ran.stdout and "to stderr" in ran.stderr and "to stderr" not in ran.stdout
    made = project / "output" / "smoke" / "rerank"
    assert made.is_dir() and made.stat().st_uid == os.getuid()
    assert (project / "there" / "calls").stat().st_uid == os.getuid()
    assert not containers(docker_engine, project)


def test_the_exit_code_is_the_stages_and_a_chain_stops_there(project: Path):
    failed = "run.env.env_vars.FAIL_AT=--to prep"
    ran = pipeline(project, "rerank", "run", "-c", "smoke", "--from", "sdg", "--to", "finetune", "--run", "box", failed)
    assert ran.returncode == 7
    assert [line.split(" pipeline ")[1] for line in calls(project)] == [
        f"rerank run --from {stage} --to {stage} -c smoke" for stage in ("sdg", "prep")
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_stage_cleanly(project: Path, docker_engine, number, code):
    process = subprocess.Popen(
        command("rerank", "finetune", "-c", "smoke", "--run", "box", "run.env.env_vars.WAIT=1"),
        cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.stdout.readline() not in ("started\n", ""):
        pass
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code and "stopping rerank-finetune" in said
    assert (project / "there" / "put_down").exists()
    assert not containers(docker_engine, project)


def test_a_secret_reaches_its_stage_and_is_nowhere_else(project: Path, docker_engine):
    override = f"nvidia_api_key={CANARY}"
    started = pipeline(project, "rerank", "sdg", "-c", "smoke", override, "--batch", "box", "run.env.env_vars.WAIT=1")
    assert started.returncode == 0, started.stderr
    name = started.stdout.split()[1]
    assert f"docker logs -f {name}" in started.stdout and f"docker stop {name}" in started.stdout
    container = docker_engine.containers.get(name)
    assert [item.id for item in containers(docker_engine, project)] == [container.id]
    try:
        until(lambda: b"started" in container.logs())
        assert f"key={CANARY}".encode() in container.logs()
        assert CANARY not in json.dumps(container.attrs) and CANARY not in "\n".join(calls(project))
        code, _ = container.exec_run(["ls", "/opt/pipeline-secrets/env"])
        assert code != 0, "the file with the secret is still there"
        assert not [path for path in project.rglob("*") if path.is_file() and CANARY in path.read_text()]
        container.stop()
        assert (project / "there" / "put_down").exists()
    finally:
        container.remove(force=True)


def test_a_secret_goes_to_no_other_stage(project: Path):
    ran = pipeline(project, "rerank", "prep", "-c", "smoke", "--run", "box", NVIDIA_API_KEY=CANARY)
    assert ran.returncode == 0 and "key=none" in ran.stdout


def test_a_detached_run_is_one_container_for_all_stages(project: Path, docker_engine):
    started = pipeline(project, "rerank", "run", "-c", "smoke", "--from", "sdg", "--to", "eval", "--batch", "box")
    assert started.returncode == 0, started.stderr
    container = docker_engine.containers.get(started.stdout.split()[1])
    try:
        assert container.wait()["StatusCode"] == 0
        assert [line.split(" pipeline ")[1] for line in calls(project)] == ["rerank run --from sdg --to eval -c smoke"]
    finally:
        container.remove(force=True)


def test_a_configuration_of_ones_own_is_seen_in_the_container(project: Path):
    (project / "base.yaml").write_text("num_pairs: 1\n")
    (project / "conf").mkdir()
    (project / "conf" / "my.yaml").write_text("extends: ../base.yaml\nseed: 7\n")
    script = project / "fake" / "uv"
    script.write_text("#!/bin/sh\ncat conf/my.yaml base.yaml data/corpus/a.txt && touch data/corpus/b.txt\n")
    arguments = ("rerank", "sdg", "-c", "conf/my.yaml", "corpus_dir=./data/corpus", "--run", "box")
    ran = pipeline(project, *arguments)
    assert "seed: 7\nnum_pairs: 1\nA document." in ran.stdout
    assert ran.returncode != 0 and "Read-only" in ran.stderr, "inputs are mounted for reading alone"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.env.runtime=nvidia-of-mars", "no runtime 'nvidia-of-mars'; it has"),
        ("run.env.container_image=pipeline-test:nowhere", "cannot pull pipeline-test:nowhere"),
        ("run.env.mounts=[data]", "'data' is not HOST:CONTAINER"),
    ],
)
def test_what_the_engine_cannot_do_is_one_clear_error(project: Path, override, said):
    ran = pipeline(project, "rerank", "sdg", "-c", "smoke", "--run", "box", override)
    assert ran.returncode == 1 and said in ran.stderr and "Traceback" not in ran.stderr
    assert not calls(project)


@pytest.mark.parametrize("way", ["--run", "--batch"])
def test_a_container_that_does_not_start_is_not_left_with_its_secrets(project: Path, docker_engine, way):
    asked = (way, "box", "run.env.gpus_per_node=1", f"nvidia_api_key={CANARY}")
    ran = pipeline(project, "rerank", "sdg", "-c", "smoke", *asked)
    if ran.returncode == 0:
        pytest.skip("this engine has GPUs")
    assert "the container of rerank-sdg does not start" in ran.stderr and "Traceback" not in ran.stderr
    assert not containers(docker_engine, project)


def test_a_reader_that_goes_away_does_not_end_the_stage(project: Path, docker_engine):
    (project / "fake" / "uv").write_text("#!/bin/sh\necho started; sleep 1; echo more; exec sleep 60\n")
    process = subprocess.Popen(
        command("rerank", "finetune", "-c", "smoke", "--run", "box"),
        cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "started\n"
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=60) == 1
    left = containers(docker_engine, project)
    try:
        assert [item.status for item in left] == ["running"]
        assert f"{left[0].name} may go on" in said and f"docker stop {left[0].name}" in said
        assert "Traceback" not in said and "Exception ignored" not in said
    finally:
        for item in left:
            item.remove(force=True)


def test_an_engine_that_is_not_there_is_one_clear_error(project: Path):
    ran = pipeline(project, "rerank", "sdg", "-c", "smoke", "--run", "box", DOCKER_HOST="unix:///nowhere.sock")
    assert ran.returncode == 1 and "DOCKER_HOST=unix:///nowhere.sock" in ran.stderr and "fix:" in ran.stderr


def until(true, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)

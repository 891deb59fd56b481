"""What becomes of a container when its engine or its connection fails, with stand-ins for both."""

from dataclasses import replace

import pytest

pytest.importorskip("docker", reason="the docker package is not in this environment")

from docker.errors import APIError
from docker.utils.socket import SocketError

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.execution.docker_container import run_attached
from pipeline.execution.docker_spec import ContainerSpec, container_spec
from pipeline.execution.plan import make_plan
from pipeline.execution.profile import Profile
from pipeline.execution.tasks import make_task


class Engine:
    """A client, its containers and its only container in one."""

    name = "pipeline-x"

    def __init__(self, fails_at: str = "", options: tuple[str, ...] = ()) -> None:
        self.fails_at, self.options = fails_at, list(options)
        self.attrs = {"State": {}}
        self.containers = self
        self.user = ""
        self.calls: list[str] = []

    def info(self) -> dict:
        return {"SecurityOptions": self.options}

    def create(self, *_: object, user: str, **__: object) -> "Engine":
        self.user = user
        return self

    def attach(self, **_: object):
        return self.output()

    def output(self):
        yield b"seen\n", None
        if self.fails_at == "output":
            raise SocketError("connection reset")

    def start(self) -> None:
        if self.fails_at == "start":
            raise APIError("no such device")

    def wait(self) -> dict:
        if self.fails_at == "wait":
            raise ConnectionResetError("engine went away")
        return {"StatusCode": 3}

    def reload(self) -> None:
        pass

    def remove(self, force: bool) -> None:
        self.calls.append("remove")


@pytest.fixture
def spec(tmp_path, monkeypatch) -> ContainerSpec:
    monkeypatch.chdir(tmp_path)
    profile = Profile(name="p", executor="docker", container_image="i", uv="uv", state_dir="./state")
    return container_spec([make_task(make_plan(resolve("embed", "prep", "smoke")), "smoke", [])], profile)


def test_a_container_that_ended_is_removed_and_its_code_is_ours(spec, capfd):
    engine = Engine()
    assert run_attached(engine, spec) == 3
    assert engine.calls == ["remove"] and capfd.readouterr().out == "seen\n"


@pytest.mark.parametrize("moment", ["output", "wait"])
def test_a_container_whose_end_nobody_knows_is_left_alone(spec, moment):
    engine = Engine(moment)
    with pytest.raises(PipelineError, match="pipeline-x may go on") as caught:
        run_attached(engine, spec)
    assert engine.calls == [] and "docker stop pipeline-x" in caught.value.fix


def test_a_container_that_does_not_start_is_removed(spec):
    engine = Engine("start")
    with pytest.raises(PipelineError, match="does not start: no such device"):
        run_attached(engine, spec)
    assert engine.calls == ["remove"]


@pytest.mark.parametrize(("option", "user"), [("name=rootless", "0:0"), ("name=userns", "7:8")])
def test_a_rootless_engine_shows_our_files_to_root(spec, option, user):
    engine = Engine(options=("name=seccomp", option))
    run_attached(engine, replace(spec, user="7:8"))
    assert engine.user == user

"""The Docker engine: its errors, its address, and a container that is put away, all without an engine."""

from __future__ import annotations

import json

import pytest
import requests

from pipeline.errors import PipelineError
from pipeline.run import docker_engine

docker = pytest.importorskip("docker")


class FakeContainer:
    """A container whose engine answers with prepared errors. `gone`: it was removed."""

    def __init__(self, error: Exception | None = None, log: bytes = b"loading\n"):
        self.name, self.status, self.attrs = "c1", "running", {"State": {"ExitCode": 0}}
        self.error, self.log, self.gone = error, log, False

    def reload(self):
        if self.error:
            raise self.error
        if self.gone:
            raise docker.errors.NotFound("no such container")

    def stop(self, timeout):
        self.status = "exited"

    def logs(self, **_):
        self.reload()
        return iter([self.log])

    def remove(self, force):
        self.reload()
        self.gone = True


@pytest.mark.parametrize(
    "error",
    [docker.errors.APIError("the daemon says no"), requests.ConnectionError("broken pipe"), TimeoutError("late")],
)
def test_what_the_engine_raises_becomes_one_of_our_errors(error, tmp_path):
    container = FakeContainer(error)
    for look in (
        lambda: docker_engine.is_running(container),
        lambda: list(docker_engine.lines_of(container, 5)),
        lambda: docker_engine.put_away(container, tmp_path / "server.log"),
    ):
        with pytest.raises(PipelineError, match=str(error)) as caught:
            look()
        assert "docker info" in caught.value.fix


def test_the_log_of_a_container_that_was_put_away_twice_is_kept(tmp_path):
    log, container = tmp_path / "server.log", FakeContainer()
    log.write_text("of the service before\n")
    assert docker_engine.put_away(container, log)
    docker_engine.put_away(container, log)
    assert log.read_text() == "loading\n"
    assert log.with_name("server.log.1").read_text() == "of the service before\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.log", "server.log.1"]


@pytest.fixture
def contexts(tmp_path, monkeypatch):
    """`docker context use a` was given; `b` exists too. Nothing listens anywhere."""
    from docker.context.config import get_context_id

    (tmp_path / "config.json").write_text('{"currentContext": "a"}')
    for name in ("a", "b"):
        meta = tmp_path / "contexts" / "meta" / get_context_id(name) / "meta.json"
        meta.parent.mkdir(parents=True)
        host = f"unix:///nowhere/{name}.sock"
        meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(docker.api.client.APIClient, "_retrieve_server_version", lambda self: "1.44")
    monkeypatch.setattr(docker.DockerClient, "ping", lambda self: True)


def socket_of(client) -> str:
    return client.api._custom_adapter.socket_path


def test_the_address_leads_back_to_the_same_engine_wherever_it_is_used(contexts, monkeypatch):
    address = docker_engine.current_address()
    assert socket_of(docker_engine.connect()) == socket_of(docker_engine.connect(address)) == "/nowhere/a.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "b")
    assert docker_engine.current_address() == "context://b" != address
    assert socket_of(docker_engine.connect(address)) == "/nowhere/a.sock"
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/c.sock")
    assert socket_of(docker_engine.connect(docker_engine.current_address())) == "/nowhere/c.sock"
    assert socket_of(docker_engine.connect(address)) == "/nowhere/a.sock"


def test_a_context_that_was_removed_is_not_taken_for_the_default(contexts):
    with pytest.raises(PipelineError, match="no context removed") as caught:
        docker_engine.connect("context://removed")
    assert "docker context ls" in caught.value.fix

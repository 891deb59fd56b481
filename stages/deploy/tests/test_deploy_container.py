"""What deploy does with the container that has its name, and with its record, before a fake engine."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from pipeline_deploy import nim
from pipeline_deploy.container import FAMILY_LABEL, RUN_LABEL
from pipeline_deploy.main import in_foreground
from pipeline_deploy.nim import NimContainer

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.family import FAMILIES
from pipeline.run.service import Service, read_service


@pytest.fixture
def run(tmp_path):
    return SimpleNamespace(
        family=FAMILIES["rerank"], folder=tmp_path, run_dir=str(tmp_path), log=logging.getLogger("pipeline")
    )


def container(number: str, labels: dict | None = None, status: str = "running"):
    ours = {FAMILY_LABEL: "rerank", RUN_LABEL: "/runs/another"}
    return SimpleNamespace(
        id=number, short_id=number, name="c1", status=status, reload=lambda: None,
        labels=ours if labels is None else labels, attrs={"Config": {"Image": "x/y:1"}},
    )  # fmt: skip


@pytest.fixture
def engine(monkeypatch):
    """`found`: the container of the name; `removed`: what was put away, and where its log went."""
    state = SimpleNamespace(found=None, removed=[])

    def put_away(taken, log=None):
        state.removed.append((taken.id, log))
        state.found = None

    for name, fake in {
        "connect": lambda: SimpleNamespace(), "ensure_image": lambda *_: None, "put_away": put_away,
        "find_container": lambda *_: state.found, "current_address": lambda: "context://default",
    }.items():  # fmt: skip
        monkeypatch.setattr(nim.docker_engine, name, fake)
    monkeypatch.setattr(nim, "check_port", lambda *_: None)
    monkeypatch.setattr(nim, "start_container", lambda *_: container("new"))
    return state


@pytest.fixture
def backend(run, engine):
    settings = ["model_dir=null", "gpus=none", "container_name=c1", "replace_existing=true"]
    return NimContainer(resolve("rerank", "deploy", "default", settings).config, run)


def test_the_container_that_was_accepted_is_replaced_and_its_log_kept(backend, engine, run):
    engine.found = container("old")
    backend.prepare()
    _, service = backend.start()
    assert service.container == "new" and service.engine == "context://default"
    assert engine.removed == [("old", (run.folder / "logs" / "server.log").resolve())]


@pytest.mark.parametrize(
    ("labels", "message"), [(None, "made meanwhile, for /runs/another"), ({}, "exists and is not ours")]
)
@pytest.mark.parametrize("before", [None, "old"])
def test_a_container_that_came_during_the_pull_is_never_removed(backend, engine, labels, message, before):
    engine.found = container(before) if before else None
    backend.prepare()
    engine.found = container("stranger", labels)
    with pytest.raises(PipelineError, match=message):
        backend.start()
    assert engine.removed == []


@pytest.mark.parametrize("ends", [True, False])
def test_the_record_is_forgotten_only_once_the_server_is_gone(run, ends):
    service = Service(
        pid=None, process_start="", machine="here", host="127.0.0.1", port=9, url="http://127.0.0.1:9", backend="nim",
        model_dir="", served_model_name="custom", contract_digest="", started="now", container="c",
    )  # fmt: skip

    class Broken:
        def serve(self, started, ready, ended):
            started(service)
            if ends:
                ended()
            raise PipelineError("the engine went away")

    with pytest.raises(PipelineError, match="went away"):
        in_foreground(run, Broken())
    assert (read_service(run.folder) is None) == ends

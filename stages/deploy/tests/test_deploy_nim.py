"""backend=nim as far as it goes without a Docker engine; `tests/cluster/test_nim_deploy.py` has one."""

from __future__ import annotations

import json
import shutil

import pytest
from docker.errors import DockerException
from pipeline_deploy.artifacts import check_engine
from pipeline_deploy.container import _gpus

from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.errors import ConfigError, PipelineError
from pipeline.run import docker_engine
from pipeline.run.service import Service, describe, read_service, write_service
from pipeline.run.snapshot import sha256_of

NO_ENGINE = "unix:///nowhere/docker.sock"


@pytest.fixture
def engine_folder(exported, tmp_path):
    """What export leaves for TensorRT, with bytes that only a container could judge."""
    folder = tmp_path / "tensorrt"
    folder.mkdir()
    for name in ("tokenizer.json", "encoding_contract.json"):
        shutil.copy(exported / name, folder)
    plan = folder / "model.plan"
    plan.write_bytes(b"engine")
    record = {"size": plan.stat().st_size, "sha256": sha256_of(plan)}
    told = {"files": {"model.plan": record}, "contract_digest": EncodingContract.load(folder).digest()}
    (folder / "metadata.json").write_text(json.dumps(told))
    return folder


def test_without_an_engine_the_error_names_where_it_was_looked_for(new_deployment, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
    with pytest.raises(PipelineError, match=f"cannot reach the Docker engine at DOCKER_HOST={NO_ENGINE}") as caught:
        new_deployment.run("backend=nim", "detach=true")
    assert "docker info" in caught.value.fix and read_service(new_deployment.folder) is None


def test_the_model_is_judged_before_the_engine_is_asked(new_deployment, copy_of_export, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
    for name in ("model.onnx", "tokenizer.json"):
        (copy_of_export / name).unlink()
    with pytest.raises(PipelineError) as caught:
        new_deployment.run("backend=nim", f"model_dir={copy_of_export}")
    assert "model.onnx is missing" in caught.value.message and "tokenizer.json is missing" in caught.value.message


def test_an_engine_and_its_tokenizer_can_be_mounted(engine_folder, exported):
    contract = check_engine(engine_folder, "embed")
    assert contract.digest() == json.loads((exported / "metadata.json").read_text())["contract_digest"]
    for name in ("metadata.json", "encoding_contract.json"):  # an engine that somebody built by hand
        (engine_folder / name).unlink()
    assert check_engine(engine_folder, "embed") is None


def test_everything_wrong_with_an_engine_is_told_at_once(engine_folder):
    (engine_folder / "tokenizer.json").unlink()
    (engine_folder / "model.plan").write_bytes(b"another")
    with pytest.raises(PipelineError) as caught:
        check_engine(engine_folder, "rerank")
    for problem in ("tokenizer.json is missing", "is of the embed family", "model.plan has 7 bytes, 6 were exported"):
        assert problem in caught.value.message


def test_an_engine_under_another_contract_is_refused(engine_folder):
    EncodingContract.load(engine_folder).with_(passage_prefix="another: ").save(engine_folder)
    with pytest.raises(PipelineError, match="is not the one that was exported"):
        check_engine(engine_folder, "embed")


@pytest.mark.parametrize(
    "override", ["gpus=some", "gpus=0", "shm_size=big", "user=root", "container_name=two words", "container_name=x"]
)
def test_values_that_the_engine_would_refuse_are_refused_at_once(override):
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        resolve("rerank", "deploy", "default", [override])


@pytest.mark.parametrize(
    ("asked", "count", "devices"), [("all", -1, []), ("2", 2, []), ("device=0,GPU-5f", 0, ["0", "GPU-5f"])]
)
def test_gpus_are_asked_for_as_docker_run_does(asked, count, devices):
    [request] = _gpus(asked)
    assert (request["Count"], request["DeviceIDs"], request["Capabilities"]) == (count, devices, [["gpu"]])
    assert _gpus("none") == []


class Engine:
    """An engine that lacks an image, and answers a pull with these events."""

    def __init__(self, events):
        self.events, self.auth, self.pulled = events, None, False
        self.images = self.api = self

    def get(self, name):
        from docker.errors import ImageNotFound

        if not self.pulled:
            raise ImageNotFound(name)

    def pull(self, name, stream, decode, auth_config):
        self.auth, self.pulled = auth_config, True
        yield from self.events


def test_a_pull_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr(docker_engine, "LINE_EVERY_SECONDS", 0)
    layer = {"status": "Downloading", "id": "a", "progressDetail": {"current": 1_500_000_000, "total": 4_000_000_000}}
    engine, told = Engine([{"status": "Pulling from x"}, layer]), []
    docker_engine.ensure_image(engine, "x/y:1", {"username": "u", "password": "p"}, told.append)
    assert "docker: pulling x/y:1: 1.5 of 4.0 GB so far" in told and engine.auth["password"] == "p"


def test_a_pull_that_needs_a_login_says_which():
    engine = Engine([{"error": "unauthorized: authentication required"}])
    with pytest.raises(PipelineError, match=r"cannot pull nvcr\.io/nim/x:1: unauthorized") as caught:
        docker_engine.ensure_image(engine, "nvcr.io/nim/x:1")
    assert "docker login nvcr.io" in caught.value.fix and "$oauthtoken" in caught.value.fix
    assert isinstance(caught.value.__cause__, DockerException)


def test_the_record_of_a_container_needs_its_engine_to_be_judged(tmp_path):
    facts = {"machine": "elsewhere", "host": "127.0.0.1", "port": 9, "url": "http://127.0.0.1:9", "backend": "nim"}
    model = {"model_dir": "", "served_model_name": "stock", "contract_digest": "", "started": "now"}
    container = {"container": "abc", "container_name": "c1", "image": "x/y:1", "engine": NO_ENGINE}
    service = Service(pid=None, process_start="", **facts, **model, **container)
    write_service(tmp_path, service)
    assert read_service(tmp_path) == service
    ready, text = describe(tmp_path)
    assert not ready and "container c1 on elsewhere" in text and "model: stock from x/y:1" in text


def test_a_record_of_an_older_version_is_still_read(tmp_path, deployment):
    old = json.loads((deployment.folder / "service.json").read_text())
    for name in ("container", "container_name", "image", "engine"):
        del old[name]
    (tmp_path / "service.json").write_text(json.dumps(old))
    assert read_service(tmp_path) == deployment.service

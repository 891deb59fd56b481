"""deploy with backend=nim on a real Docker engine; `nim_image.sh` makes the image that stands in for NVIDIA's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import torch
from pipeline_deploy.container import FAMILY_LABEL, RUN_LABEL, has_gpu_support
from pipeline_deploy.main import main
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from pipeline.assets import resolve_model
from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.run.docker_engine import find_container
from pipeline.run.handoff import write_handoff
from pipeline.run.service import Health, describe, health, read_service, stop, tail
from pipeline.run.stage import execute

IMAGE = "pipeline-nim-standin:test"
CANARY = "nvapi-canary-5f2b"
TEXTS = ["E-104: the sieve column is blocked.", "The canteen opens at noon."]
SAMPLES = {
    "embed": ("/v1/embeddings", {"input": TEXTS, "input_type": "passage"}),
    "rerank": ("/v1/ranking", {"query": {"text": "alarm?"}, "passages": [{"text": text} for text in TEXTS]}),
}


def tiny_checkpoint(folder: Path, family: str) -> Path:
    """A model with random weights, as finetune saves one."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("embedded:all-MiniLM-L6-v2"))
    torch.manual_seed(3)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=1, **size)
    (BertModel if family == "embed" else BertForSequenceClassification)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    lengths = {"query_max_length": 64, "passage_max_length": 64} if family == "embed" else {"rerank_max_length": 64}
    EncodingContract(family=family, base_model="tiny", **lengths).save(folder)
    return folder


@pytest.fixture(scope="module")
def engine(docker_engine):
    return docker_engine


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict[str, Path]:
    """An export of each family, made by the export stage."""
    made = {}
    for family in SAMPLES:
        root = tmp_path_factory.mktemp(family)
        model = tiny_checkpoint(root / "model", family)
        settings = [f"run_dir={root}", f"model_path={model}", "parity_data_path=null", "export_to_trt=false"]
        handoff = write_handoff(resolve(family, "export", "default", settings), root / "export.yaml")
        command = [sys.executable, "-m", "pipeline_export.main", "--config", str(handoff)]
        subprocess.run(command, check=True, capture_output=True)
        made[family] = root / "stage4_export" / "onnx"
    return made


@pytest.fixture(scope="module")
def image(engine, exports) -> str:
    script = Path(__file__).with_name("nim_image.sh")
    subprocess.run([script, IMAGE, sys.executable, exports["rerank"]], check=True)
    return IMAGE


@pytest.fixture
def image_that_runs(engine, image):
    """Make an image whose container runs a line of Python instead of the server."""
    made = []

    def make(code: str) -> str:
        lines = f"FROM {image}\nCMD {json.dumps(['-c', code])}\n"
        built, _ = engine.images.build(fileobj=BytesIO(lines.encode()), rm=True)
        made.append(built.id)
        return built.id

    yield make
    for name in made:
        engine.images.remove(name, force=True)


class Deployment:
    """The deploy stage on one run directory, with the stand-in as its image."""

    def __init__(self, engine, run_dir: Path, exports: dict[str, Path], family: str) -> None:
        run_dir.mkdir()
        self.engine, self.family, self.folder = engine, family, run_dir / "stage5_deploy"
        self.run_dir, self.name, self.port = run_dir, f"pipeline-test-{os.getpid()}-{family}", free_port()
        self.settings = [
            f"run_dir={run_dir}", f"model_dir={exports[family]}", f"nim_image={IMAGE}", f"container_name={self.name}",
            f"host_port={self.port}", "gpus=none", "shm_size=64mb", "health_check_interval=0.2",
            "health_check_timeout=120",
        ]  # fmt: skip

    def resolved(self, *overrides: str):
        return resolve(self.family, "deploy", "default", [*self.settings, *overrides])

    def run(self, *overrides: str):
        execute(self.resolved("detach=true", *overrides), main)
        return read_service(self.folder)

    def start_process(self, *overrides: str) -> subprocess.Popen:
        handoff = write_handoff(self.resolved(*overrides), self.run_dir / "deploy.yaml")
        command = [sys.executable, "-m", "pipeline_deploy.main", "--config", str(handoff)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    @property
    def container(self):
        return find_container(self.engine, self.name)

    def ask(self, url: str, model: str):
        path, body = SAMPLES[self.family]
        with urlopen(Request(url + path, json.dumps({"model": model, **body}).encode()), timeout=30) as reply:
            return json.load(reply)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def new(engine, image, exports, tmp_path, monkeypatch):
    """Make deployments; their containers are gone afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NGC_API_KEY", CANARY)
    made = []

    def make(family: str = "rerank", folder: str = "run") -> Deployment:
        made.append(Deployment(engine, tmp_path / folder, exports, family))
        return made[-1]

    yield make
    for deployment in made:
        if deployment.container:
            deployment.container.remove(force=True)


@pytest.mark.parametrize("family", list(SAMPLES))
def test_the_life_of_a_container_in_the_background(new, exports, tmp_path, family):
    deployment = new(family)
    service = deployment.run()
    reply = deployment.ask(service.url, "custom")
    assert len(reply["data" if family == "embed" else "rankings"]) == 2
    assert health(deployment.folder) == Health.READY
    assert f"container {deployment.name}" in describe(deployment.folder)[1]
    assert any("stand-in: custom" in line for line in tail(deployment.folder))

    attrs = deployment.container.attrs
    settings = dict(item.split("=", 1) for item in attrs["Config"].pop("Env"))
    assert settings["NIM_CUSTOM_MODEL"] == "/opt/nim/custom_model" and settings["NIM_HTTP_API_PORT"] == "8000"
    assert settings["NGC_API_KEY"] == CANARY
    mounts = {item["Target"]: item for item in attrs["HostConfig"]["Mounts"]}
    assert mounts["/opt/nim/custom_model"]["Source"] == str(exports[family])
    assert mounts["/opt/nim/custom_model"]["ReadOnly"]
    assert mounts["/opt/nim/.cache"]["Source"] == str(tmp_path / "cache" / "nim")
    assert attrs["HostConfig"]["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": f"{service.port}"}]}
    assert attrs["HostConfig"]["ShmSize"] == 64 * 2**20
    assert attrs["Config"]["Labels"] == {FAMILY_LABEL: family, RUN_LABEL: str(deployment.run_dir)}

    with pytest.raises(PipelineError, match=f"already at {service.url}"):
        deployment.run()
    replaced = deployment.run("replace_existing=true")
    assert replaced.container != service.container

    deployment.container.stop(timeout=5)  # as `docker stop NAME` does
    assert health(deployment.folder) == Health.GONE
    assert deployment.run().container != replaced.container, "nothing is in the way of the next one"
    assert "stopped" in stop(deployment.folder)
    assert deployment.container is None and read_service(deployment.folder) is None
    assert "stand-in: custom" in (deployment.folder / "logs" / "server.log").read_text()

    assert CANARY not in json.dumps(attrs)
    files = [path for path in deployment.run_dir.rglob("*") if path.is_file()]
    assert files and not [path for path in files if CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_stops_the_container(new, number):
    deployment = new()
    process = deployment.start_process()
    try:
        shown = ""
        while "Ctrl-C stops it" not in shown:
            line = process.stdout.readline()
            assert line, shown
            shown += line
        assert deployment.container is not None and health(deployment.folder) == Health.READY
        process.send_signal(number)
        rest = process.communicate(timeout=60)[0]
    finally:
        process.kill()
        process.wait()
    assert "stand-in: custom" in shown + rest, "the container's log is shown"
    assert process.returncode == 0, rest
    assert deployment.container is None and read_service(deployment.folder) is None
    assert CANARY not in shown + rest


def test_in_the_foreground_the_exit_code_of_the_container_is_ours(image_that_runs, new):
    deployment = new()
    failing = image_that_runs("print('no licence'); raise SystemExit(7)")
    process = deployment.start_process(f"nim_image={failing}")
    shown = process.communicate(timeout=120)[0]
    assert process.returncode == 7 and "no licence" in shown and "exit code 7" in shown
    assert deployment.container is None and read_service(deployment.folder) is None


def test_a_container_that_ends_early_is_reported_with_its_log(image_that_runs, new):
    deployment = new()
    failing = image_that_runs("print('no licence'); raise SystemExit(7)")
    with pytest.raises(PipelineError, match="exit code 7 before it was ready") as caught:
        deployment.run(f"nim_image={failing}")
    assert "no licence" in caught.value.message and "server.log" in caught.value.fix
    assert deployment.container is None and read_service(deployment.folder) is None
    assert (deployment.folder / "logs" / "server.log").read_text() == "no licence\n"


@pytest.mark.parametrize("keep", [False, True])
def test_an_unhealthy_container_is_removed_unless_it_is_to_be_kept(image_that_runs, new, keep):
    deployment = new()
    silent = image_that_runs("import signal; signal.signal(15, exit); print('loading', flush=True); signal.pause()")
    with pytest.raises(PipelineError, match="did not answer") as caught:
        deployment.run(f"nim_image={silent}", "health_check_timeout=1", f"keep_failed_container={keep}")
    assert "loading" in caught.value.message
    assert (deployment.container is not None) == (read_service(deployment.folder) is not None) == keep


def test_the_image_s_own_model_is_served_under_its_own_name(new):
    deployment = new()
    service = deployment.run("model_dir=null")
    assert service.served_model_name == "stand-in/stock-model" and service.contract_digest == ""
    assert deployment.ask(service.url, service.served_model_name)["rankings"]
    assert f"stand-in/stock-model from {IMAGE}" in describe(deployment.folder)[1]
    settings = deployment.container.attrs["Config"]["Env"]
    assert not [item for item in settings if item.startswith("NIM_CUSTOM_MODEL")]


def test_a_container_of_somebody_else_is_never_touched(new, engine):
    deployment = new()
    foreign = engine.containers.create(IMAGE, name=deployment.name)
    with pytest.raises(PipelineError, match=f"of image {IMAGE}, exists and is not ours"):
        deployment.run("replace_existing=true")
    assert deployment.container.id == foreign.id


def test_a_container_of_another_run_is_replaced_only_if_asked(new):
    first, second = new(folder="first"), new(folder="second")
    running = first.run()
    with pytest.raises(PipelineError, match=f"already runs, for {first.run_dir}") as caught:
        second.run()
    assert "replace_existing=true" in caught.value.fix
    second.run("replace_existing=true")
    assert health(first.folder) == Health.GONE and second.container.id != running.container


def test_what_the_engine_refuses_is_told_with_a_way_on(new, engine):
    deployment = new()
    with pytest.raises(PipelineError, match="cannot pull localhost:1/none:1"):
        deployment.run("nim_image=localhost:1/none:1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", deployment.port))
        taken.listen(1)
        with pytest.raises(PipelineError, match=f"port {deployment.port} on 127.0.0.1 is in use"):
            deployment.run()
    if not has_gpu_support(engine):
        with pytest.raises(PipelineError, match="gives no GPUs") as caught:
            deployment.run("gpus=all")
        assert "backend=onnx" in caught.value.fix and "gpus=none" in caught.value.fix
    assert deployment.container is None and read_service(deployment.folder) is None

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pipeline_deploy.main import main
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from pipeline.assets import resolve_model
from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.run.handoff import write_handoff
from pipeline.run.service import Service, is_alive, read_service, stop
from pipeline.run.stage import execute


def export(family: str, model: Path, run_dir: Path, *overrides: str) -> Path:
    """An export made by the export stage in its own process, as a user gets it."""
    settings = [f"run_dir={run_dir}", f"model_path={model}", "parity_data_path=null", "export_to_trt=false", *overrides]
    handoff = write_handoff(resolve(family, "export", "default", settings), run_dir / "export.yaml")
    subprocess.run([sys.executable, "-m", "pipeline_export.main", "--config", handoff], check=True, capture_output=True)
    return run_dir / "stage4_export" / "onnx"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """The real model under a contract with prefixes and different lengths for queries and passages."""
    folder = tmp_path_factory.mktemp("checkpoint") / "consolidated"
    shutil.copytree(resolve_model("embedded:all-MiniLM-L6-v2"), folder)
    limits = {"query_max_length": 32, "passage_max_length": 128}
    EncodingContract(base_model="minilm", query_prefix="query: ", passage_prefix="passage: ", **limits).save(folder)
    return folder


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory) -> Path:
    return export("embed", checkpoint, tmp_path_factory.mktemp("run"), "parity_texts=8")


@pytest.fixture(scope="session")
def reranker(tmp_path_factory) -> Path:
    """A tiny cross-encoder with random weights, wide enough apart that its scores differ."""
    folder = tmp_path_factory.mktemp("reranker") / "consolidated"
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("embedded:all-MiniLM-L6-v2"))
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.4, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    EncodingContract(family="rerank", base_model="tiny", rerank_max_length=64).save(folder)
    return folder


@pytest.fixture(scope="session")
def exported_reranker(reranker, tmp_path_factory) -> Path:
    return export("rerank", reranker, tmp_path_factory.mktemp("rerank_run"))


@pytest.fixture
def copy_of_export(exported, tmp_path) -> Path:
    """An export that a test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "onnx"))


@pytest.fixture
def free_port() -> int:
    return _free_port()


class Deployment:
    """The deploy stage on one run directory."""

    def __init__(self, run_dir: Path, model_dir: Path, port: int, family: str = "embed") -> None:
        self.run_dir, self.folder, self.port, self.family = run_dir, run_dir / "stage5_deploy", port, family
        self.settings = [f"run_dir={run_dir}", f"model_dir={model_dir}", f"host_port={port}", "threads=2"]

    def run(self, *overrides: str) -> Service | None:
        execute(resolve(self.family, "deploy", "demo", [*self.settings, *overrides]), main)
        return read_service(self.folder)

    def start_process(self, *overrides: str) -> subprocess.Popen:
        """The stage as a process of its own."""
        handoff = write_handoff(
            resolve(self.family, "deploy", "demo", [*self.settings, *overrides]), self.run_dir / "deploy.yaml"
        )
        command = [sys.executable, "-m", "pipeline_deploy.main", "--config", str(handoff)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def stop(self) -> None:
        service = read_service(self.folder)
        if service and is_alive(service):
            stop(self.folder)


@pytest.fixture(scope="module")
def deployment(exported, tmp_path_factory):
    """A running service that the tests of a module share."""
    shared = Deployment(tmp_path_factory.mktemp("service"), exported, _free_port())
    shared.service = shared.run("detach=true")
    yield shared
    shared.stop()


@pytest.fixture(scope="module")
def rerank_deployment(exported_reranker, tmp_path_factory):
    """A running reranker under the documented model's name."""
    shared = Deployment(tmp_path_factory.mktemp("service"), exported_reranker, _free_port(), "rerank")
    shared.service = shared.run(
        "detach=true", "served_model_name=nvidia/llama-nemotron-rerank-1b-v2", "max_request_texts=80"
    )
    yield shared
    shared.stop()


@pytest.fixture
def new_deployment(exported, tmp_path, free_port):
    made = Deployment(tmp_path / "run", exported, free_port)
    (tmp_path / "run").mkdir()
    yield made
    made.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

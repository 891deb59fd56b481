"""A real server that is not llama.cpp: `transformers serve`, which takes a JSON schema and pays no heed to it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_sdg.main import main

from pipeline.assets import resolve_model
from pipeline.config import resolve
from pipeline.records.sdg import read_records
from pipeline.run.stage import execute

WAIT_SECONDS = 240
NAMES = ("alpha.md", "beta.md", "gamma.md")

# Makes a model of two small layers and serves it. What it writes is noise: something that nobody can hold to a form.
# The server's own way to load a model needs `accelerate`, for several devices; there is one here.
_PROGRAM = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.transformers import main
vocabulary, target = sys.argv.pop(1), sys.argv[1]
tokenizer = PreTrainedTokenizerFast(tokenizer_file=vocabulary, eos_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]")
tokenizer.chat_template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }} {% endfor %}"
torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, eos_token_id=102, **shape)
LlamaForCausalLM(config).save_pretrained(target)
tokenizer.save_pretrained(target)
ModelManager._load_model = lambda self, name, **_: LlamaForCausalLM.from_pretrained(target)
sys.argv.insert(1, "serve")
main()
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(address, name of the model)."""
    model = tmp_path / "tiny"
    vocabulary = Path(resolve_model("embedded:all-MiniLM-L6-v2")) / "tokenizer.json"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    about = ["--host", "127.0.0.1", "--port", port, "--device", "cpu"]
    command = [sys.executable, "-c", _PROGRAM, str(vocabulary), str(model), *about]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", model
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_noise_is_repaired_once_and_then_counted(tmp_path: Path, corpus: Path, served: tuple[str, Path]) -> None:
    url, model = served
    models = [f"{role}_model={model}" for role in ("artifact_extraction", "qa_generation", "quality_judge")]
    about = [f"run_dir={tmp_path}", f"corpus_dir={corpus}", "provider=mine", f"base_url={url}", *models]
    resolved = resolve("embed", "sdg", "default", [*about, "embed_model=null", "num_pairs=1", "max_tokens=24"])
    assert execute(resolved, main) is not None  # no usable pair
    folder = tmp_path / "stage0_sdg"
    assert [record["file_name"] for _, record in read_records(folder)] == [[name] for name in NAMES]
    roles = json.loads((folder / "usage.json").read_text())["roles"]
    for role in ("artifact_extraction", "qa_generation"):
        assert (roles[role]["calls_made"], roles[role]["repair_turns"], roles[role]["calls_failed"]) == (6, 3, 0)
        assert 0 < roles[role]["output_tokens"] <= 6 * 24
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert {(item["document"], item["role"]) for item in rejected} == {
        (name, role)
        for name in ("alpha.md", "beta.md", "gamma.md")
        for role in ("artifact_extraction", "qa_generation")
    }
    assert all(item["reply"] and item["finish_reason"] == "length" for item in rejected)
    assert execute(resolved, main) is not None
    assert json.loads((folder / "usage.json").read_text())["total"]["calls_made"] == 0

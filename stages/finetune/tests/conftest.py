"""A tiny encoder with a real tokenizer, and training files small enough to train on in a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pipeline_finetune.main import main
from transformers import AutoTokenizer, BertConfig, BertModel

from pipeline.assets import resolve_model
from pipeline.config import resolve
from pipeline.records.passages import Passage, write_corpus
from pipeline.records.training import TrainingFile, TrainingRow
from pipeline.run.stage import execute

MINILM = "embedded:all-MiniLM-L6-v2"
NOUNS = ["pump", "valve", "lamp", "rail", "mast", "filter", "cabinet", "sensor", "winch", "tank", "cable", "fan"]
FAULTS = ["leaks", "sticks", "flickers", "bends", "hums", "clogs", "overheats", "drifts"]


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small only lose by sharing their work between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A random two-layer BERT under MiniLM's tokenizer: everything a real one has, in milliseconds."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_model(MINILM)).save_pretrained(folder)
    return folder


def write_training_set(folder: Path, n_rows: int = 24, negatives: int = 3) -> Path:
    """Questions about machine parts with one positive each; returns the training file. `val.json` lies beside it."""
    pairs = [(noun, fault) for noun in NOUNS for fault in FAULTS]
    passages = [
        Passage(f"p{number}", f"When the {noun} {fault}, turn key {number} and " + "wait " * (number % 7))
        for number, (noun, fault) in enumerate(pairs)
    ]
    rows = [
        TrainingRow(
            f"q{number}_0", f"the {pairs[number][0]} {pairs[number][1]}, what now?", "parts", [f"p{number}"],
            [f"p{(number + step) % len(pairs)}" for step in range(1, negatives + 1)],
            extra={"original_question_id": f"q{number}", "known_pos_ids": [f"p{number}"]},
        )
        for number in range(n_rows + 6)
    ]  # fmt: skip
    write_corpus(folder / "corpus", passages, "parts")
    TrainingFile(Path("."), rows[n_rows:]).save(folder / "val.json")
    return TrainingFile(Path("."), rows[:n_rows]).save(folder / "train.json")


@pytest.fixture
def training_set(tmp_path) -> Path:
    return write_training_set(tmp_path / "data")


@pytest.fixture
def make_training_set() -> Callable[..., Path]:
    return write_training_set


class Stage:
    """Runs the stage in this process and reads what it wrote."""

    def __init__(self, run_dir: Path, train: Path, model: Path, family: str = "embed") -> None:
        self.run_dir, self.train, self.model, self.family = run_dir, train, model, family
        self.folder = run_dir / "stage2_finetune"
        self.checkpoints = self.folder / "checkpoints"

    def __call__(self, *more: str, model: str | Path | None = None) -> None:
        execute(resolve(self.family, "finetune", "demo", self.overrides(*more, model=model)), main)

    def overrides(self, *more: str, model: str | Path | None = None) -> list[str]:
        """A short CPU run in fp32. The rows carry no teacher's scores, which the reranker's demo learns from."""
        own = {
            "embed": ("query_max_length=32", "passage_max_length=32"),
            "rerank": ("rerank_max_length=48", "loss=listwise", "temperature=1.0", "train_n_passages=5"),
        }
        return [
            f"run_dir={self.run_dir}", f"train_data_path={self.train}",
            f"val_data_path={self.train.with_name('val.json')}",
            f"base_model={model or self.model}", *own[self.family], "global_batch_size=8",
            "precision=fp32", "device=cpu", "learning_rate=1e-3", "num_epochs=2", *more,
        ]  # fmt: skip

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.lines("training.jsonl")]

    def lines(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.checkpoints / name).read_text().splitlines()]

    @property
    def manifest(self) -> dict:
        return json.loads((self.folder / "manifest.json").read_text())

    @property
    def log(self) -> str:
        return (self.folder / "logs" / "train.log").read_text()


@pytest.fixture
def stage(tmp_path, training_set, tiny_model) -> Stage:
    return Stage(tmp_path / "run", training_set, tiny_model)


@pytest.fixture
def rerank_stage(tmp_path, training_set, tiny_model) -> Stage:
    return Stage(tmp_path / "rerank", training_set, tiny_model, "rerank")


@pytest.fixture
def another_stage(tmp_path, training_set, tiny_model) -> Stage:
    return Stage(tmp_path / "another", training_set, tiny_model)

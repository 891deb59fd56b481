"""The stage as a whole: training, resuming, dying, publishing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from pipeline_finetune.checkpoint import Checkpoints
from pipeline_finetune.embed import EmbedTraining
from pipeline_finetune.optimizer import make_optimizer, pick_backend
from pipeline_finetune.trainer import Trainer

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.encoder import BiEncoder, tokenizer_hash

MINILM = "embedded:all-MiniLM-L6-v2"


class Killed(BaseException):
    """Stands for kill -9 where a real one would cost a process."""


def die_after(monkeypatch, n: int) -> None:
    original, count = Trainer._record, iter(range(10**6))

    def record(self, *arguments):
        if next(count) == n:
            raise Killed
        original(self, *arguments)

    monkeypatch.setattr(Trainer, "_record", record)


def test_training_writes_what_is_documented(stage):
    stage()
    latest = stage.checkpoints / "LATEST"
    assert os.readlink(latest) == "epoch_1_step_6"
    consolidated = latest / "model" / "consolidated"
    for name in ("config.json", "model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json",
                 "config_sentence_transformers.json", "sentence_bert_config.json",
                 "encoding_contract.json"):  # fmt: skip
        assert (consolidated / name).is_file(), name
    lines = stage.lines("training.jsonl")
    assert [(line["step"], line["epoch"]) for line in lines] == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)]
    for key in ("run_id", "loss", "lr", "grad_norm", "examples_per_s", "tokens_per_s", "eta_s", "padding_share",
                "time_per_step", "timestamp"):  # fmt: skip
        assert key in lines[0], key
    assert lines[-1]["loss"] < lines[0]["loss"], "a learnable task must be learned"
    validation = stage.lines("validation.jsonl")
    assert validation[-1]["step"] == 6 and {"val_loss", "val_acc1", "val_mrr"} <= validation[-1].keys()
    manifest = stage.manifest
    assert {"train_loss", "val_loss", "examples_per_s", "tokens_per_s", "gemm_share"} <= manifest["metrics"].keys()
    assert "checkpoints/epoch_1_step_6/model/consolidated/model.safetensors" in manifest["outputs"]
    assert "checkpoints/training.jsonl" in manifest["outputs"]
    assert "training plan" in stage.log and "step 6/6" in stage.log and "checkpoint epoch_1_step_6" in stage.log


def test_the_contract_describes_the_saved_model(stage):
    stage("query_prefix=ask: ", "passage_max_length=48")
    folder = stage.checkpoints / "LATEST" / "model" / "consolidated"
    contract = EncodingContract.load(folder)
    assert (contract.query_prefix, contract.query_max_length, contract.passage_max_length) == ("ask: ", 32, 48)
    assert (contract.dimension, contract.dtype, contract.base_model) == (32, "float32", str(stage.model))
    loaded = BiEncoder.load(str(folder), contract)
    assert tokenizer_hash(loaded.tokenizer) == contract.tokenizer_hash
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None and tokenizer["padding"] is None


def test_a_resumed_run_repeats_an_uninterrupted_one(stage, another_stage, monkeypatch):
    more = ("dropout=0.1", "checkpoint_every_steps=2", "micro_batch_tokens=128")
    another_stage(*more)
    with monkeypatch.context() as dying:
        die_after(dying, 3)
        with pytest.raises(Killed):
            stage(*more)
    assert len(stage.losses) == 3 and not (stage.folder / "manifest.json").exists()
    stage(*more)
    assert "continuing after step 2" in stage.log
    assert [line["step"] for line in stage.lines("training.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert stage.losses == pytest.approx(another_stage.losses, abs=1e-6)
    weights = [
        (item.checkpoints / "LATEST" / "model" / "consolidated" / "model.safetensors").read_bytes()
        for item in (stage, another_stage)
    ]
    assert weights[0] == weights[1]


def test_a_finished_run_is_published_again_without_training(stage, monkeypatch):
    stage()
    first = stage.manifest

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(EmbedTraining, "step", refuse)
    stage("keep_checkpoints=3")
    second = stage.manifest
    assert second["outputs"] == first["outputs"]
    same = ("train_loss", "val_loss", "tokens_per_s", "training_seconds")
    assert {key: second["metrics"][key] for key in same} == {key: first["metrics"][key] for key in same}


@pytest.mark.parametrize("what", ["setting", "data"])
def test_another_setting_or_other_data_start_afresh(stage, make_training_set, what):
    stage("max_steps=2")
    if what == "setting":
        stage("max_steps=2", "temperature=0.07")
    else:
        make_training_set(stage.train.parent, negatives=2)
        stage("max_steps=2")
    assert "another run" in stage.log and "starting afresh" in stage.log
    assert len(list(stage.folder.glob("checkpoints.*"))) == 1
    assert len(stage.losses) == 2


def test_the_place_of_the_data_is_no_setting(stage, make_training_set, tmp_path):
    stage("max_steps=2")
    stage.train = make_training_set(tmp_path / "moved")
    stage("max_steps=2")
    assert "is finished: publishing" in stage.log


def test_the_best_checkpoint_is_published_when_asked(stage, monkeypatch):
    losses = iter([0.5, 0.1, 0.9, 0.8])

    def validate(self):
        return {"val_loss": next(losses), "val_acc1": 1.0, "val_mrr": 1.0, "val_ndcg10": 1.0, "val_rows": 1}

    monkeypatch.setattr(EmbedTraining, "validate", validate)
    stage("select_best=true", "best_metric=val_loss", "max_steps=4", "checkpoint_every_steps=1", "keep_checkpoints=1")
    assert os.readlink(stage.checkpoints / "LATEST") == "epoch_0_step_2"
    assert stage.manifest["metrics"]["published_step"] == 2
    assert [item.step for item in Checkpoints(stage.checkpoints, 1).all()] == [2, 4]
    assert os.readlink(stage.checkpoints / "BEST") == "epoch_0_step_2"


def test_a_loss_that_is_no_number_ends_the_run_with_the_rows(stage, monkeypatch):
    original = EmbedTraining.step
    calls = iter(range(100))

    def step(self, rows):
        result = original(self, rows)
        return result if next(calls) < 2 else replace(result, loss=float("nan"))

    monkeypatch.setattr(EmbedTraining, "step", step)
    with pytest.raises(PipelineError, match=r"loss became nan at step 3, rows q\d+_0, ") as caught:
        stage("checkpoint_every_steps=1")
    assert "learning_rate" in caught.value.fix
    assert not (stage.folder / "manifest.json").exists()
    assert [item.step for item in Checkpoints(stage.checkpoints, 2).all()] == [1, 2]


def test_preps_contract_wins_over_the_yaml_and_is_not_contradicted_in_silence(stage):
    upstream = EncodingContract(base_model=str(stage.model), query_prefix="ask: ", query_max_length=32,
                                passage_max_length=32)  # fmt: skip
    upstream.save(stage.train.parent)
    stage("max_steps=1")
    published = EncodingContract.load(stage.checkpoints / "LATEST" / "model" / "consolidated")
    assert published.query_prefix == "ask: " and published.temperature == 0.05
    with pytest.raises(PipelineError, match=r"query_prefix='other: '.*encoding_contract.json"):
        stage("max_steps=1", "query_prefix=other: ")
    upstream.with_(base_model="another/model").save(stage.train.parent)
    stage("max_steps=1", "query_prefix=other: ")
    published = EncodingContract.load(stage.checkpoints / "LATEST" / "model" / "consolidated")
    assert published.query_prefix == "other: "


@pytest.mark.parametrize("backend", ["fused_adam", "flash_adamw"])
def test_a_missing_optimizer_says_what_to_install(backend, monkeypatch):
    monkeypatch.setattr("pipeline_finetune.optimizer.find_spec", lambda _: None)
    with pytest.raises(PipelineError, match="needs an NVIDIA GPU"):
        pick_backend(backend, torch.device("cpu"))
    with pytest.raises(PipelineError, match="not installed here") as caught:
        pick_backend(backend, torch.device("cuda"))
    assert "pip install" in caught.value.fix and "optimizer_backend=auto" in caught.value.fix


def test_auto_takes_the_first_optimizer_that_works_here(monkeypatch):
    assert pick_backend("auto", torch.device("cpu")) == "adamw"
    for installed, expected in ((("transformer_engine", "flashoptim"), "fused_adam"), (("flashoptim",), "flash_adamw"),
                                ((), "adamw")):  # fmt: skip
        monkeypatch.setattr(
            "pipeline_finetune.optimizer.find_spec", lambda name, known=installed: name in known or None
        )
        assert pick_backend("auto", torch.device("cuda")) == expected


def test_norms_and_biases_do_not_decay():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    decayed, plain = make_optimizer(model, "adamw", learning_rate=1.0, weight_decay=0.1).param_groups
    assert [item.ndim for item in decayed["params"]] == [2] and decayed["weight_decay"] == 0.1
    assert [item.ndim for item in plain["params"]] == [1, 1, 1] and plain["weight_decay"] == 0.0


_RUN = """
import sys
from pipeline.config import resolve
from pipeline.run.stage import execute
from pipeline_finetune.main import main
execute(resolve("embed", "finetune", "demo", sys.argv[1:]), main)
"""


@pytest.mark.slow
def test_kill_9_leaves_a_state_that_continues(stage, another_stage):
    more = ["max_steps=20", "checkpoint_every_steps=1", "global_batch_size=4", "num_epochs=10"]
    overrides = stage.overrides(*more)
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, *overrides], stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    checkpoints = Checkpoints(stage.checkpoints, 2)
    while process.poll() is None and not any(item.step >= 4 for item in checkpoints.all()):
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    newest = checkpoints.all()[-1]
    newest.tensors()
    BiEncoder.load(str(newest.consolidated), EncodingContract.load(newest.consolidated))
    assert (stage.checkpoints / "LATEST" / "model" / "consolidated" / "model.safetensors").is_file()
    stage(*more)
    another_stage(*more, "checkpoint_every_steps=100")
    assert stage.losses == pytest.approx(another_stage.losses, abs=1e-6)
    assert [line["step"] for line in stage.lines("training.jsonl")] == list(range(1, 21))


@pytest.mark.slow
def test_sentence_transformers_gives_the_same_vectors(stage):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    stage("max_steps=2", "query_prefix=query: ", "passage_prefix=passage: ", "global_batch_size=4", model=MINILM)
    folder = stage.checkpoints / "LATEST" / "model" / "consolidated"
    texts = ["the lamp flickers, what now?", "When the pump leaks, turn key 7 and " + "wait " * 60, "x"]
    own = BiEncoder.load(str(folder), EncodingContract.load(folder))
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert theirs.max_seq_length == 32
    assert theirs.prompts == {"query": "query: ", "document": "passage: "}
    for prompt, ours in (("query", own.encode_queries(texts)), ("document", own.encode_passages(texts))):
        assert np.abs(theirs.encode(texts, prompt_name=prompt) - ours).max() < 1e-5
    base = BiEncoder.load(resolve_model(MINILM), own.contract)
    assert np.abs(base.encode_queries(texts) - own.encode_queries(texts)).max() > 1e-3, "nothing was trained"

"""Keys that change what is trained or when it ends, each seen to do so through the whole stage."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from pipeline_finetune.checkpoint import Checkpoints
from pipeline_finetune.embed import EmbedTraining

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.encoder import BiEncoder

TEXTS = ["the lamp flickers, what now?", "the pump leaks"]


def published(stage) -> BiEncoder:
    folder = stage.checkpoints / "LATEST" / "model" / "consolidated"
    return BiEncoder.load(str(folder), EncodingContract.load(folder))


def test_two_encoders_start_equal_and_part(stage):
    stage("share_encoder=false", "num_epochs=4")
    encoder = published(stage)
    assert encoder.query_model is not None
    asked, read = encoder.encode(TEXTS, "query"), encoder.encode(TEXTS, "passage")
    assert np.abs(asked - read).max() > 1e-3
    assert stage.losses[-1] < stage.losses[0]


@pytest.mark.parametrize("pooling", ["weighted_avg", "cls", "last", "colbert"])
def test_every_pooling_trains_with_split_and_whole_steps_alike(stage, another_stage, pooling):
    common = ("max_steps=3", f"pooling={pooling}")
    stage(*common)
    another_stage(*common, "activation_tokens=100", "micro_batch_tokens=64")
    assert stage.losses == pytest.approx(another_stage.losses, abs=2e-5)
    assert "val_loss" in stage.lines("validation.jsonl")[-1]


def test_matryoshka_trains_the_short_vectors_too(stage, another_stage):
    common = ("num_epochs=6",)
    stage(*common, "matryoshka_dims=[8,4]")
    another_stage(*common)

    def accuracy(which) -> float:
        """How often the right passage is first when vectors are cut to 4 numbers."""
        encoder = published(which)
        rows = json.loads(which.train.read_text())["data"]
        corpus = {f"p{i}": None for i in range(96)}
        import pyarrow.parquet as pq

        table = pq.read_table(which.train.parent / "corpus" / "train.parquet").to_pydict()
        corpus = dict(zip(table["id"], table["text"], strict=True))
        asked = encoder.encode_queries([row["question"] for row in rows])[:, :4]
        read = encoder.encode_passages(list(corpus.values()))[:, :4]
        asked, read = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (asked, read))
        best = np.argsort(-(asked @ read.T), axis=1)[:, :10]
        names = list(corpus)
        return float(np.mean([row["pos_doc"][0]["id"] in {names[i] for i in found}
                              for row, found in zip(rows, best, strict=True)]))  # fmt: skip

    assert accuracy(stage) > accuracy(another_stage)
    with pytest.raises(PipelineError, match="matryoshka_dims"):
        stage("matryoshka_dims=[64]")


def test_false_negatives_are_left_out_of_the_batch(stage, another_stage):
    stage("max_steps=1")
    another_stage("max_steps=1", "false_negative_margin=0.5")
    assert another_stage.losses[0] < stage.losses[0], "fewer rivals, smaller loss"


def test_training_ends_early_when_validation_no_longer_improves(stage, monkeypatch):
    values = iter([0.5, 0.6, 0.55, 0.58, 0.9, 0.9])

    def validate(self):
        return {"val_loss": 1.0, "val_acc1": 1.0, "val_mrr": 1.0, "val_ndcg10": next(values), "val_rows": 1}

    monkeypatch.setattr(EmbedTraining, "validate", validate)
    more = ("early_stopping_patience=2", "select_best=true", "num_epochs=10", "val_every_steps=1",
            "checkpoint_every_steps=100")  # fmt: skip
    stage(*more)
    assert len(stage.losses) == 4
    assert "stopping early: 2 validations without a better val_ndcg10 than after step 2" in stage.log
    assert os.readlink(stage.checkpoints / "LATEST") == "epoch_0_step_2", "the best one is published"
    assert stage.manifest["counts"]["steps"] == 4
    stage(*more)
    assert "is finished: publishing" in stage.log, "a run that stopped early is finished"


def test_without_validation_early_stopping_is_off_and_said_so(stage):
    stage("val_data_path=null", "early_stopping_patience=1", "select_best=true", "max_steps=2")
    assert "no BEST checkpoint and no early stopping (select_best and early stopping asked for)" in stage.log
    assert not (stage.checkpoints / "BEST").exists() and len(stage.losses) == 2


def test_restore_from_continues_at_a_named_checkpoint(stage):
    stage("checkpoint_every_steps=1", "keep_checkpoints=6")
    first = stage.losses
    stage("checkpoint_every_steps=1", "keep_checkpoints=6", "restore_from=epoch_0_step_2")
    assert "continuing after step 2" in stage.log
    assert stage.losses[2:] == pytest.approx(first[2:], abs=1e-6)
    assert [item.step for item in Checkpoints(stage.checkpoints, 9).all()] == [2, 3, 4, 5, 6]
    with pytest.raises(PipelineError, match="restore_from=epoch_9_step_9"):
        stage("restore_from=epoch_9_step_9", "keep_checkpoints=6")


def test_validation_searches_the_corpus(stage):
    stage("max_steps=2", "val_corpus_size=1000")
    searched = stage.lines("validation.jsonl")[-1]["val_ndcg10"]
    stage("max_steps=2", "val_corpus_size=0")
    assert "its data or settings differ" in stage.log, "another validation may choose another checkpoint"
    ranked = stage.lines("validation.jsonl")[-1]["val_ndcg10"]
    assert 0 <= searched < ranked, "finding an answer among all passages is harder than among its own negatives"


def test_clustered_order_trains_and_repeats(stage, another_stage):
    common = ("in_batch_negatives=false", "data_order=clustered", "max_steps=3")
    stage(*common)
    another_stage(*common)
    assert stage.losses == another_stage.losses


def test_checkpoint_interval_may_be_said_the_documented_way(stage):
    stage("ckpt_every_steps=2", "val_every_steps=null", "keep_checkpoints=9")
    assert [item.step for item in Checkpoints(stage.checkpoints, 9).all()] == [2, 4, 6]


def test_padding_to_a_multiple_changes_nothing_but_the_shape(stage, another_stage):
    stage("max_steps=2")
    another_stage("max_steps=2", "pad_to_multiple_of=16")
    assert stage.losses == pytest.approx(another_stage.losses, abs=1e-5)


def test_a_stray_rank_in_the_environment_means_nothing(stage, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    stage("max_steps=1")
    assert stage.manifest["counts"]["steps"] == 1


def test_compiling_without_a_compiler_is_refused_before_the_first_step(stage, monkeypatch):
    monkeypatch.setattr("pipeline_finetune.setup.shutil.which", lambda _: None)
    with pytest.raises(PipelineError, match="torch_compile=true needs a C\\+\\+ compiler"):
        stage("torch_compile=true")
    assert not (stage.checkpoints / "training.jsonl").exists()


@pytest.mark.slow
def test_a_compiled_model_trains_and_saves_as_the_plain_one(stage, another_stage):
    stage("max_steps=2", "torch_compile=true")
    another_stage("max_steps=2")
    assert stage.losses == pytest.approx(another_stage.losses, abs=1e-4)
    assert (
        np.abs(published(stage).encode(TEXTS, "query") - published(another_stage).encode(TEXTS, "query")).max() < 1e-3
    )

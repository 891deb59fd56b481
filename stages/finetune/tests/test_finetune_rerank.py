"""The reranker's training as a whole, on the same rows and through the same loop as the embedder's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pipeline_finetune.rerank import RerankTraining
from pipeline_finetune.steps import WatchedLoss

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.cross_encoder import CrossEncoder

QUESTIONS = ["the lamp flickers, what now?", "the pump leaks, what now?"]
PASSAGES = ["When the lamp flickers, turn key 17 and wait", "When the pump leaks, turn key 3 and " + "wait " * 60]


def published(stage):
    folder = stage.checkpoints / "LATEST" / "model" / "consolidated"
    return folder, CrossEncoder.load(str(folder), EncodingContract.load(folder))


def test_a_cross_encoder_learns_the_task_and_loads_again(rerank_stage):
    rerank_stage("num_epochs=12")
    lines = rerank_stage.lines("training.jsonl")
    assert lines[-1]["loss_avg_window"] < lines[0]["loss"]
    assert {"positive_score", "hardest_negative_score", "accuracy", "score_spread"} <= lines[0].keys()
    validation = rerank_stage.lines("validation.jsonl")[-1]
    assert {"val_loss", "val_acc1", "val_mrr", "val_ndcg10"} <= validation.keys()
    assert "has no head for reranking: a new one is drawn" in rerank_stage.log
    folder, model = published(rerank_stage)
    assert EncodingContract.load(folder).family == "rerank"
    assert np.isfinite(model.score(QUESTIONS, PASSAGES)).all()


@pytest.mark.parametrize("template", [None, "question:{query} \n \n passage:{passage}"])
def test_the_sentence_transformers_cross_encoder_agrees(rerank_stage, template):
    from sentence_transformers import CrossEncoder as Theirs

    more = [] if template is None else [f"prompt_template={template}"]
    rerank_stage("max_steps=3", *more)
    folder, ours = published(rerank_stage)
    theirs = Theirs(str(folder), device="cpu")
    pairs = list(zip(QUESTIONS, PASSAGES, strict=True))
    got = theirs.predict(pairs, activation_fn=torch.nn.Identity())
    assert np.abs(got - ours.score(QUESTIONS, PASSAGES)).max() < 1e-5


@pytest.mark.parametrize("loss", ["listwise", "pointwise"])
def test_a_split_step_is_the_whole_step(rerank_stage, another_stage, loss):
    another_stage.family = "rerank"
    common = ("max_steps=3", f"loss={loss}")
    rerank_stage(*common)
    another_stage(*common, "activation_tokens=100", "micro_batch_tokens=64", "local_batch_size=2")
    assert rerank_stage.losses == pytest.approx(another_stage.losses, abs=1e-5)


@pytest.mark.parametrize("loss", ["margin_mse", "kl"])
def test_a_teacher_is_followed(rerank_stage, loss):
    file = json.loads(rerank_stage.train.read_text())
    with pytest.raises(PipelineError, match="teacher"):
        rerank_stage(f"loss={loss}")
    for row in file["data"]:
        for name, score in (("pos_doc", 3.0), ("neg_doc", -1.0)):
            for item in row[name]:
                item["score"] = score
    rerank_stage.train.write_text(json.dumps(file))
    rerank_stage(f"loss={loss}", "num_epochs=10")
    assert rerank_stage.losses[-1] < rerank_stage.losses[0]


def test_scores_that_have_become_equal_end_the_run(rerank_stage, monkeypatch):
    original = WatchedLoss.take

    def equal(self):
        seen = original(self)
        seen[3] = 0.0
        return seen

    monkeypatch.setattr(WatchedLoss, "take", equal)
    with pytest.raises(PipelineError, match="the model has collapsed") as caught:
        rerank_stage("num_epochs=20")
    assert "learning_rate" in caught.value.fix
    rerank_stage("num_epochs=8", "stop_on_collapse=false", "resume=never")


def test_a_resumed_run_repeats_an_uninterrupted_one(rerank_stage, another_stage, monkeypatch):
    another_stage.family = "rerank"
    more = ("dropout=0.1", "checkpoint_every_steps=2", "num_epochs=2")
    another_stage(*more)
    original, calls = RerankTraining.step, iter(range(100))

    class Killed(BaseException):
        pass

    def step(self, rows):
        if next(calls) == 3:
            raise Killed
        return original(self, rows)

    with monkeypatch.context() as dying:
        dying.setattr(RerankTraining, "step", step)
        with pytest.raises(Killed):
            rerank_stage(*more)
    rerank_stage(*more)
    assert "continuing after step 2" in rerank_stage.log
    assert rerank_stage.losses == pytest.approx(another_stage.losses, abs=1e-6)

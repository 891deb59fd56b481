"""`pipeline rerank finetune` through the real command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def rerank(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "rerank", *arguments],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip


@pytest.fixture
def trained(rerank_smoke) -> Path:
    """The published reranker of a four-step training with the real model."""
    log = (rerank_smoke.stage("finetune") / "logs" / "latest.log").read_text()
    assert "has no head for reranking" in log
    return (rerank_smoke.stage("finetune") / "checkpoints" / "LATEST" / "model" / "consolidated").resolve()


def test_the_reranker_loads_in_sentence_transformers_and_agrees(trained):
    import torch
    from sentence_transformers import CrossEncoder as Theirs

    from pipeline.contract import EncodingContract
    from pipeline.retrieval.cross_encoder import CrossEncoder

    queries = ["the lamp flickers after rain", "which key?", "x " * 100]
    passages = ["The drip rail carries the letter D in its alarms. " * 40, "Key seven hangs in hall four.", "y " * 400]
    ours = CrossEncoder.load(str(trained), EncodingContract.load(trained)).score(queries, passages)
    theirs = Theirs(str(trained), device="cpu").predict(
        list(zip(queries, passages, strict=True)), activation_fn=torch.nn.Identity()
    )
    assert np.isfinite(ours).all() and np.abs(ours - theirs).max() < 1e-5


def test_every_documented_key_is_in_the_help():
    documented = (
        "max_train_samples", "use_dataset_instruction", "eval_negative_size", "flash_adamw_master_weight_bits",
        "checkpoint_every_steps", "ckpt_every_steps", "val_every_steps", "restore_from", "pad_to_multiple_of",
        "timeout_minutes", "lr_decay_style", "optimizer_backend", "tp_size", "cp_size",
    )  # fmt: skip
    for family in ("embed", "rerank"):
        shown = subprocess.run(
            [sys.executable, "-m", "pipeline", family, "finetune", "--help"], capture_output=True, text=True
        )
        assert [key for key in documented if key not in shown.stdout] == []


def test_several_mistakes_are_told_at_once():
    wrong = rerank("finetune", "tp_size=2", "prompt_template={query} alone", "pooling=colbert", "loss=infonce")
    assert wrong.returncode == 1 and "4 errors" in wrong.stderr and "Traceback" not in wrong.stderr
    assert "{passage}" in wrong.stderr and "tp_size" in wrong.stderr

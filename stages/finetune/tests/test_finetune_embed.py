"""Training steps of bi-encoders: equal gradients whether activations are held, recomputed or split into groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pipeline_finetune.data import prepare_data
from pipeline_finetune.distributed import TrainingWorld
from pipeline_finetune.embed import EmbedTraining
from pipeline_finetune.families import FAMILIES
from pipeline_finetune.losses.infonce import InfoNCE
from pipeline_finetune.losses.matryoshka import Matryoshka
from pipeline_finetune.losses.vectors import VectorLoss
from pipeline_finetune.setup import set_dropout
from pipeline_finetune.similarity import dot, late_interaction
from pipeline_finetune.steps import WatchedLoss
from pipeline_finetune.strategy import Compute

from pipeline.contract import EncodingContract
from pipeline.records.sources.read import read_sources
from pipeline.retrieval.encoder import BiEncoder
from pipeline.schemas.finetune import EmbedFinetuneConfig

ROWS = np.arange(12)
EVERYTHING = 10**6


@pytest.fixture
def make_training(training_set, tiny_model, tmp_path):
    def make(
        *, dropout: float = 0.0, in_batch: bool = True, pooling: str = "avg", dims: tuple[int, ...] = (),
        margin: float | None = None, held: int = EVERYTHING, micro: int = 2048, local: int = 4, **contract: object,
    ) -> EmbedTraining:  # fmt: skip
        torch.manual_seed(1)
        contract = EncodingContract(
            base_model=str(tiny_model), query_max_length=32, passage_max_length=32, pooling=pooling, **contract
        )
        encoder = BiEncoder.load(str(tiny_model), contract)
        set_dropout(encoder, dropout)
        encoder.train()
        data = prepare_data(
            tmp_path,
            read_sources(str(training_set), seed=0),
            read_sources(str(training_set.with_name("val.json")), seed=0, kind="val"),
            n_passages=4,
            eval_negatives=3,
            encode=FAMILIES[EmbedFinetuneConfig].encode(encoder),
        )
        watched = WatchedLoss(InfoNCE(0.05))
        loss = VectorLoss(watched, late_interaction if pooling == "colbert" else dot, false_negative_margin=margin)
        return EmbedTraining(
            encoder,
            data,
            loss=Matryoshka(loss, dims, width=32, normalize=True) if dims else loss,
            watched=watched,
            in_batch_negatives=in_batch,
            cross_rank=False,
            compute=Compute(torch.float32, micro, held, local),
            world=TrainingWorld(),
        )

    return make


def gradients(training: EmbedTraining) -> tuple[float, dict[str, torch.Tensor]]:
    torch.manual_seed(5)
    result = training.step(ROWS)
    return result.loss, {name: item.grad for name, item in training.model.named_parameters() if item.grad is not None}


def assert_same(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert other[0] == pytest.approx(one[0], abs=1e-5)
    assert one[1].keys() == other[1].keys() and len(one[1]) > 20
    for name, gradient in one[1].items():
        assert torch.allclose(gradient, other[1][name], atol=1e-5), name


@pytest.mark.parametrize(
    "how",
    [{"in_batch": False}, {}, {"margin": 0.1}, {"dims": (16, 8)}, {"pooling": "colbert"}, {"share_encoder": False}],
    ids=["hard negatives", "in batch", "margin", "matryoshka", "colbert", "two encoders"],
)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_held_and_recomputed_activations_give_the_same_gradients(make_training, dropout, how):
    how = {"dropout": dropout, "micro": 64, "local": len(ROWS), **how}
    assert_same(gradients(make_training(held=EVERYTHING, **how)), gradients(make_training(held=1, **how)))


@pytest.mark.parametrize("how", [{"held": 1, "local": 5}, {"micro": 40}], ids=["local batches", "sub-batches"])
@pytest.mark.parametrize("pooling", ["avg", "colbert"])
def test_local_batches_and_sub_batches_change_nothing(make_training, pooling, how):
    whole = gradients(make_training(in_batch=False, pooling=pooling))
    assert_same(whole, gradients(make_training(in_batch=False, pooling=pooling, **how)))


def test_each_distinct_text_is_encoded_once(make_training):
    training = make_training()
    result = training.step(ROWS)
    table = training.data.train
    named = np.unique([table.positive[ROWS], *table.negatives[ROWS].T])
    expected = table.queries.lengths[ROWS].sum() + training.passages.lengths[named].sum()
    assert result.tokens == expected < result.padded_tokens


def test_validation_ranks_the_positive_among_its_own_negatives(make_training):
    training = make_training()
    values = training.validate()
    assert training.model.training, "validation must leave the model in training mode"
    training.model.eval()
    table, ranks = training.data.val, []
    for row in range(len(table)):
        passages = [list(training.passages[item]) for item in (table.positive[row], *table.negatives[row])]
        question = training.model.encode_tokens([list(table.queries[row])])[0]
        scores = training.model.encode_tokens(passages) @ question
        ranks.append(1 + (scores[1:] >= scores[0]).sum())
    assert values["val_rows"] == len(ranks) == 6
    assert values["val_acc1"] == pytest.approx(np.mean(np.array(ranks) == 1))
    assert values["val_mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))

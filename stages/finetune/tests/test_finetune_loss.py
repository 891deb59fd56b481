"""The loss by hand, and equal gradients whether activations are held, recomputed or split into local batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pipeline_finetune.data import load_rows, load_val_rows
from pipeline_finetune.embed import EmbedTraining, Limits, set_dropout
from pipeline_finetune.losses.infonce import InfoNCE
from pipeline_finetune.validation import ranking_metrics

from pipeline.contract import EncodingContract
from pipeline.retrieval.encoder import BiEncoder


def test_infonce_by_hand():
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    passages = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    everything = torch.ones(2, 3, dtype=torch.bool)
    # scores / 0.5: [2, 0, 1.2] and [0, 2, 1.6]
    first = math.log(math.exp(2) + 1 + math.exp(1.2)) - 2
    second = math.log(1 + math.exp(2) + math.exp(1.6)) - 2
    loss = InfoNCE(0.5)
    assert loss(queries, passages, torch.tensor([0, 1]), everything).item() == pytest.approx((first + second) / 2)
    own = torch.tensor([[True, False, True], [False, True, False]])
    alone = math.log(math.exp(2) + math.exp(1.2)) - 2
    assert loss(queries, passages, torch.tensor([0, 1]), own).item() == pytest.approx(alone / 2)


def test_a_masked_passage_gets_no_gradient():
    queries, passages = torch.randn(1, 4), torch.randn(3, 4, requires_grad=True)
    InfoNCE(0.1)(queries, passages, torch.tensor([0]), torch.tensor([[True, True, False]])).backward()
    assert passages.grad[2].abs().sum() == 0 and passages.grad[1].abs().sum() > 0


@pytest.fixture
def make_training(training_set, tiny_model):
    def make(dropout: float = 0.0, in_batch: bool = True, **limits: int) -> EmbedTraining:
        torch.manual_seed(1)
        contract = EncodingContract(base_model=str(tiny_model), query_max_length=32, passage_max_length=32)
        encoder = BiEncoder.load(str(tiny_model), contract)
        set_dropout(encoder, dropout)
        train = load_rows(training_set, need_negatives=False)
        val = load_val_rows(training_set.with_name("val.json"))
        encoder.train()
        return EmbedTraining.prepare(
            encoder, train, val, n_passages=4, temperature=0.05, in_batch_negatives=in_batch, dtype=torch.float32,
            limits=Limits(**limits),
        )  # fmt: skip

    return make


def gradients(training: EmbedTraining) -> tuple[float, dict[str, torch.Tensor]]:
    torch.manual_seed(5)
    result = training.step(np.arange(12))
    return result.loss, {name: item.grad for name, item in training.model.named_parameters() if item.grad is not None}


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_held_and_recomputed_activations_give_the_same_gradients(make_training, in_batch, dropout):
    small = {"micro_batch_tokens": 64, "local_batch": 12}
    loss, direct = gradients(make_training(dropout, in_batch, activation_tokens=10**6, **small))
    cached_loss, cached = gradients(make_training(dropout, in_batch, activation_tokens=1, **small))
    assert cached_loss == pytest.approx(loss, abs=1e-5)
    assert direct.keys() == cached.keys() and len(direct) > 20
    for name, gradient in direct.items():
        assert torch.allclose(gradient, cached[name], atol=1e-5), name


def test_local_batches_and_sub_batches_change_nothing(make_training):
    loss, whole = gradients(make_training(in_batch=False))
    for limits in ({"activation_tokens": 1, "local_batch": 5}, {"micro_batch_tokens": 40}):
        other_loss, other = gradients(make_training(in_batch=False, **limits))
        assert other_loss == pytest.approx(loss, abs=1e-5)
        assert all(torch.allclose(gradient, other[name], atol=1e-5) for name, gradient in whole.items())


def test_each_distinct_text_is_encoded_once(make_training):
    training = make_training()
    result = training.step(np.arange(12))
    named = np.unique([training.data.train.positive[:12], *training.data.train.negatives[:12].T])
    expected = training.data.train.queries.lengths[:12].sum() + training.data.passages.lengths[named].sum()
    assert result.tokens == expected < result.padded_tokens


def test_validation_ranks_the_positive_among_its_own_negatives(make_training, training_set):
    training = make_training()
    values = training.validate()
    assert training.model.training, "validation must leave the model in training mode"
    training.model.eval()
    val = load_val_rows(training_set.with_name("val.json"))
    ranks = []
    for row in val.rows:
        texts = [val.corpus[item].text for item in (*row.positives, *row.negatives)]
        scores = training.model.encode_passages(texts) @ training.model.encode_queries([row.question])[0]
        ranks.append(1 + (scores[1:] >= scores[0]).sum())
    assert values["val_rows"] == len(ranks) == 6
    assert values["val_acc1"] == pytest.approx(np.mean(np.array(ranks) == 1))
    assert values["val_mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))


def test_ranking_metrics_by_hand():
    scores = torch.tensor([[0.9, 0.1, -torch.inf], [0.5, 0.5, 0.2], [0.1, 0.3, 0.2]])
    values = ranking_metrics(scores, temperature=0.5)
    assert values["val_acc1"] == pytest.approx(1 / 3)
    assert values["val_mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    expected = np.mean(
        [-math.log(math.exp(row[0] / 0.5) / sum(math.exp(s / 0.5) for s in row)) for row in scores.tolist()]
    )
    assert values["val_loss"] == pytest.approx(expected, abs=1e-6)

"""Our attention gives what transformers' plain one gives, and its dropout drops what it says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
)  # fmt: skip

from pipeline.retrieval import attention
from pipeline.retrieval.attention import FastDropout, drop_out, use_fast_dropout, use_plain_attention

SIZE = {"vocab_size": 100, "hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 48}
ROPE = {**SIZE, "num_key_value_heads": 2, "pad_token_id": 0}
MODELS = {
    "bert": (BertConfig(**SIZE), BertModel),
    "roberta": (RobertaConfig(**SIZE), RobertaModel),
    "mpnet": (MPNetConfig(**SIZE), MPNetModel),
    "deberta": (DebertaV2Config(**SIZE), DebertaV2Model),
    "modernbert": (ModernBertConfig(**SIZE, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
                                    sep_token_id=2, local_attention=4), ModernBertModel),
    "llama": (LlamaConfig(**ROPE), LlamaModel),
    "llama, both ways": (LlamaConfig(**ROPE, is_causal=False), LlamaModel),
    "mistral": (MistralConfig(**ROPE, sliding_window=3), MistralModel),
    "qwen3": (Qwen3Config(**ROPE, head_dim=6), Qwen3Model),
}  # fmt: skip


@pytest.mark.parametrize("texts_at_once", [3, 2, 1])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_the_same_with_our_attention(name, padded, texts_at_once, monkeypatch):
    monkeypatch.setattr(attention, "_CACHED", texts_at_once * 6 * 9 * 9 * 4)
    config, kind = MODELS[name]
    torch.manual_seed(0)
    model = kind._from_config(config, attn_implementation="eager").eval()
    ids = torch.randint(3, 90, (3, 9))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 5:] = 0
        mask[2, :3] = 0
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=mask).last_hidden_state
        used = use_plain_attention(model)
        ours = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert used == ("eager" if name in ("mpnet", "deberta") else "plain")
    assert (ours - theirs)[mask.bool()].abs().max() < 1e-5


def test_gradients_are_the_same_too():
    config, kind = MODELS["bert"]
    torch.manual_seed(0)
    model = kind._from_config(config, attn_implementation="eager").eval()
    ids, mask = torch.randint(3, 90, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[1, 5:] = 0

    def gradients():
        model.zero_grad()
        (model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]).square().sum().backward()
        return {name: item.grad.clone() for name, item in model.named_parameters() if item.grad is not None}

    wanted = gradients()
    use_plain_attention(model)
    found = gradients()
    assert all((found[name] - wanted[name]).abs().max() < 1e-4 for name in wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@given(share=st.floats(0.01, 0.95))
@settings(max_examples=20, deadline=None)
def test_dropout_drops_its_share_and_keeps_the_mean(dtype, share):
    torch.manual_seed(1)
    values = torch.ones(200_001, dtype=dtype)  # not a multiple of what one draw makes
    dropped = drop_out(values, share)
    zero = dropped == 0
    assert abs(float(zero.float().mean()) - share) < 0.01
    kept = dropped[~zero].float()
    assert (kept == kept[0]).all() and float(kept[0]) == pytest.approx(1 / (1 - share), rel=0.01)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(2)
    zero = (drop_out(torch.ones(400_000, dtype=torch.bfloat16), 0.3) == 0).float()
    for distance in (1, 2, 3, 4, 8):
        together = float((zero[:-distance] * zero[distance:]).mean())
        assert together == pytest.approx(0.09, abs=0.005)


def test_dropout_repeats_with_the_seed_and_is_off_in_use():
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    use_fast_dropout(module)
    assert type(module[1]) is FastDropout
    values = torch.randn(64, 4)
    torch.manual_seed(3)
    first = module(values)
    torch.manual_seed(3)
    assert torch.equal(first, module(values)) and not torch.equal(first, module(values))
    module.eval()
    assert torch.equal(module(values), module[0](values))
    assert drop_out(values, 0.0) is values


def test_the_gradient_goes_where_the_values_went():
    values = torch.ones(1000, requires_grad=True)
    dropped = drop_out(values, 0.4)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())

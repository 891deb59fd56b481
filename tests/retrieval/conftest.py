"""Tiny random models of many architectures under MiniLM's tokenizer, saved as folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from pipeline.assets import resolve_model

_WORDS = 30522
_SIZES = {
    "vocab_size": _WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 66, "pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102,
}  # fmt: skip
_OWN_SIZES = {
    "roberta": {"pad_token_id": 1},
    "deberta-v2": {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": {"cls_token_id": 101, "sep_token_id": 102, "local_attention": 8, "global_attn_every_n_layers": 2},
    "llama": {"num_key_value_heads": 1},
    "qwen2": {"num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 8},
    "mistral": {"num_key_value_heads": 1, "sliding_window": 4},
    "ministral": {"num_key_value_heads": 1, "sliding_window": 4, "head_dim": 8},
    "ministral3": {"num_key_value_heads": 1, "head_dim": 8},
}


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small only lose by sharing their work between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., object]:
    return lambda kind, **more: AutoConfig.for_model(kind, **_SIZES | _OWN_SIZES.get(kind, {}) | more)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, tiny_config) -> Callable[..., Path]:
    """Folder of a random model of this type; the same one every time. `auto` is the class that builds it."""
    made: dict[tuple, Path] = {}

    def make(kind: str, auto: type = AutoModel, **more: object) -> Path:
        name = (kind, auto, tuple(more.items()))
        if name not in made:
            made[name] = tmp_path_factory.mktemp(kind)
            torch.manual_seed(0)
            model = auto.from_config(tiny_config(kind, **more))
            for weight in model.parameters():
                weight.data *= 3  # far from the near-linear start, so that differences show
            model.save_pretrained(made[name])
            AutoTokenizer.from_pretrained(resolve_model("embedded:all-MiniLM-L6-v2")).save_pretrained(made[name])
        return made[name]

    return make

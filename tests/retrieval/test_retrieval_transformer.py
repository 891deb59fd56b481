"""Loading of encoders and of decoders made bidirectional."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.bidirectional import make_bidirectional, reads_ahead
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.transformer import LoadOptions, load_transformer, longest_input

ENCODERS = ["bert", "roberta", "mpnet", "deberta-v2", "modernbert"]
DECODERS = ["llama", "qwen2", "qwen3", "mistral", "ministral", "ministral3"]
SHORT = EncodingContract(query_max_length=32, passage_max_length=64)
IDS = torch.tensor([[101, 7, 8, 9, 10, 11, 12, 13, 14, 102], [101, 21, 22, 23, 24, 102, 0, 0, 0, 0]])
PADDED = (IDS != 0).long()
WHOLE = torch.ones_like(IDS)


def hidden(model: torch.nn.Module, mask: torch.Tensor, **how: object):
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=mask, output_hidden_states=True, **how)


def edited(folder: Path, target: Path, **settings: object) -> Path:
    """A copy of a model folder with other settings in its config.json."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | settings))
    return target


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_gives_vectors_whatever_the_padding(kind, tiny_model):
    encoder = BiEncoder.load(str(tiny_model(kind)), SHORT)
    texts = ["pump", "the valve of the pump leaks " * 4]
    vectors = encoder.encode(texts, "passage")
    assert vectors.shape == (2, 16)
    alone = encoder.encode(texts[:1], "passage")
    assert abs(vectors[0] - alone[0]).max() < 1e-6 < abs(vectors[0] - vectors[1]).max()


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("mask", [WHOLE, PADDED], ids=["unpadded", "padded"])
def test_a_later_token_changes_every_earlier_layer_of_a_decoder(kind, kernel, mask, tiny_model, caplog):
    caplog.set_level(logging.INFO, "pipeline")
    model, _ = load_transformer(str(tiny_model(kind)), torch.float32, LoadOptions(attn_implementation=kernel))
    assert "both directions" in caplog.text
    before = hidden(model, mask).hidden_states
    with torch.no_grad():
        other = IDS.clone()
        other[:, 2] = 99
        after = model(input_ids=other, attention_mask=mask, output_hidden_states=True).hidden_states
    assert torch.equal(before[0][:, 0], after[0][:, 0])
    for left, right in zip(before[1:], after[1:], strict=True):
        assert (left[:, 0] != right[:, 0]).any(-1).all()  # a causal layer gives equal numbers


@pytest.mark.parametrize("kind", DECODERS)
def test_each_single_layer_attends_ahead(kind, tiny_model):
    model, _ = load_transformer(str(tiny_model(kind)), torch.float32, LoadOptions(attn_implementation="eager"))
    for layer in hidden(model, WHOLE, output_attentions=True).attentions:
        assert (layer[:, :, 0, 1] > 0).all()


@pytest.mark.parametrize("kind", DECODERS)
def test_a_saved_decoder_stays_bidirectional_in_plain_transformers(kind, tiny_model, tmp_path):
    plain = AutoModel.from_pretrained(tiny_model(kind)).eval()
    assert not reads_ahead(plain)
    make_bidirectional(plain, kind)
    plain.save_pretrained(tmp_path)
    for kernel in ("sdpa", "eager"):
        again = AutoModel.from_pretrained(tmp_path, attn_implementation=kernel).eval()
        for mask in (WHOLE, PADDED):
            ours, theirs = hidden(plain, mask).last_hidden_state, hidden(again, mask).last_hidden_state
            assert (ours - theirs).mul(mask[..., None]).abs().max() < 1e-5


def test_an_architecture_that_stays_causal_is_refused(tiny_model, monkeypatch):
    monkeypatch.setattr("pipeline.retrieval.bidirectional.reads_ahead", lambda model: False)
    with pytest.raises(PipelineError, match=r"\(llama\) stays causal"):
        load_transformer(str(tiny_model("llama")), torch.float32)


def test_a_finished_causal_embedding_model_keeps_its_attention(tiny_model, tmp_path, caplog):
    caplog.set_level(logging.INFO, "pipeline")
    finished = edited(tiny_model("llama"), tmp_path / "finished")
    (finished / "modules.json").write_text("[]")
    assert not reads_ahead(load_transformer(str(finished), torch.float32)[0])
    assert "kept as it was trained" in caplog.text


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize(("kind", "stock"), [("llama_bidirec", "llama"), ("ministral3_bidirec", "ministral3")])
def test_registered_types_load_without_their_own_code(kind, stock, prefix, tiny_model, tmp_path):
    plain, _ = load_transformer(str(tiny_model(stock)), torch.float32)
    folder = edited(tiny_model(stock), tmp_path / "own", model_type=kind, auto_map={"AutoModel": "own.Model"})
    weights = load_file(folder / "model.safetensors")
    save_file({prefix + name: value for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    model, tokenizer = load_transformer(str(folder), torch.float32)
    assert torch.equal(hidden(model, PADDED).last_hidden_state, hidden(plain, PADDED).last_hidden_state)
    assert tokenizer.vocab_size == 30522


def test_a_registered_reranker_brings_head_pooling_and_temperature(tiny_model, tmp_path):
    source = tiny_model("llama", AutoModelForSequenceClassification, num_labels=1)
    folder = edited(source, tmp_path / "own", model_type="llama_bidirec", pooling="last", temperature=4.0)
    reranker = CrossEncoder.load(str(folder), EncodingContract("rerank", rerank_max_length=32))
    score = load_file(folder / "model.safetensors")["score.weight"]
    assert reranker.contract.pooling == "last" and reads_ahead(reranker.body)
    assert torch.equal(reranker.head.weight, score / 4) and not reranker.head.bias.any()


def test_a_checkpoint_without_some_of_its_weights_is_refused(tiny_model, tmp_path):
    for number, auto in enumerate((AutoModel, AutoModelForSequenceClassification)):
        more = {"num_labels": 1} if number else {}
        folder = edited(tiny_model("bert", auto, **more), tmp_path / str(number))
        weights = load_file(folder / "model.safetensors")
        dropped = next(name for name in sorted(weights) if "layer.1" in name)
        save_file({name: value for name, value in weights.items() if name != dropped},
                  folder / "model.safetensors", {"format": "pt"})  # fmt: skip
        with pytest.raises(PipelineError, match=r"lacks 1 of its weights, such as .*layer\.1"):
            CrossEncoder.load(str(folder), EncodingContract("rerank", rerank_max_length=32))


def test_a_registered_type_without_a_head_gets_a_new_one(tiny_model, tmp_path, caplog):
    folder = edited(tiny_model("llama"), tmp_path / "own", model_type="llama_bidirec", pooling="last")
    reranker = CrossEncoder.load(str(folder), EncodingContract("rerank", rerank_max_length=32, pooling="cls"))
    assert "a new one is drawn at random" in caplog.text and reranker.contract.pooling == "cls"


def test_what_a_type_is_not_for_is_refused_before_weights_are_read(tiny_model, tmp_path):
    def without_weights(kind: str) -> str:
        folder = edited(tiny_model("ministral3"), tmp_path / kind, model_type=kind)
        (folder / "model.safetensors").unlink()
        return str(folder)

    with pytest.raises(PipelineError, match="ministral3_bidirec are for embed, not for rerank"):
        CrossEncoder.load(without_weights("ministral3_bidirec"), EncodingContract("rerank"))
    with pytest.raises(PipelineError, match="llama_nemotron_vl") as error:
        BiEncoder.load(without_weights("llama_nemotron_vl"), SHORT)
    assert "extract_submodel=language_model" in error.value.fix


@pytest.mark.parametrize(("kind", "limit"), [("bert", 66), ("roberta", 64), ("mpnet", 64), ("llama", 66)])
def test_lengths_beyond_the_positions_are_refused(kind, limit, tiny_model):
    folder = str(tiny_model(kind))
    model = BiEncoder.load(folder, SHORT.with_(passage_max_length=limit))
    assert longest_input(model.model) == limit
    model.encode(["word " * 100], "passage")
    with pytest.raises(PipelineError, match=f"reads at most {limit} tokens"):
        BiEncoder.load(folder, SHORT.with_(passage_max_length=limit + 1))
    ready = tiny_model(kind, AutoModelForSequenceClassification, num_labels=1)
    for place in (folder, str(ready)):
        with pytest.raises(PipelineError, match=f"reads at most {limit} tokens"):
            CrossEncoder.load(place, EncodingContract("rerank", rerank_max_length=limit + 1))


def test_a_part_of_a_larger_model_is_trained_alone(tiny_config, tiny_model, tmp_path):
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaModel

    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    parent = LlavaModel(LlavaConfig(text_config=tiny_config("llama"), vision_config=vision)).eval()
    folder = edited(tiny_model("llama"), tmp_path / "parent")
    parent.save_pretrained(folder)
    part, _ = load_transformer(str(folder), torch.float32, LoadOptions(extract_submodel="language_model"))
    assert reads_ahead(part)
    expected = dict(parent.language_model.named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in part.named_parameters())
    with pytest.raises(PipelineError, match="no part 'text'") as error:
        load_transformer(str(folder), torch.float32, LoadOptions(extract_submodel="text"))
    assert "language_model" in error.value.fix
    with pytest.raises(PipelineError, match="no model that loads by itself"):
        load_transformer(str(folder), torch.float32, LoadOptions(extract_submodel="multi_modal_projector"))

"""What is saved loads in sentence-transformers and in this pipeline with the same vectors and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline_finetune.consolidated import save_consolidated
from sentence_transformers import CrossEncoder as PeerCrossEncoder
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract, contract_of_model
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.encoder import BiEncoder

KINDS = ["bert", "modernbert", "llama"]
MODES = ["avg", "weighted_avg", "cls", "last"]
QUERIES = ["why does the pump stop", "a {query} {0} brace", "x", "same"]
PASSAGES = ["when the valve leaks " * 2, "the {passage} mast", "y " * 90, "same \"quote' 🌊"]
TEMPLATES = [None, "question:{query} \n \n passage:{passage}", "q:{query} é🌊\"'\\ p:{passage} the end."]
_SIZES = {
    "vocab_size": 30522, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 66, "pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102,
}  # fmt: skip
_OWN_SIZES = {
    "modernbert": {"cls_token_id": 101, "sep_token_id": 102, "local_attention": 8, "global_attn_every_n_layers": 2},
    "llama": {"num_key_value_heads": 1},
}


def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer like Llama's: bytes, a token before the text and none after it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    rules = Tokenizer(models.BPE({letter: number for number, letter in enumerate(["<s>", "▁", *letters])}, []))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    rules.add_special_tokens(["<s>"])
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<s>", pad_token="<s>")


def make(folder: Path, kind: str, auto: type = AutoModel, tokenizer: object = None) -> Path:
    """A random model whose tokenizer has a chat template, as those of language models have."""
    torch.manual_seed(0)
    more = {"num_labels": 1} if auto is AutoModelForSequenceClassification else {}
    model = auto.from_config(AutoConfig.for_model(kind, **_SIZES | _OWN_SIZES.get(kind, {}) | more))
    for weight in model.parameters():
        weight.data *= 3  # far from the near-linear start, so that differences show
    model.save_pretrained(folder)
    tokenizer = tokenizer or AutoTokenizer.from_pretrained(resolve_model("embedded:all-MiniLM-L6-v2"))
    tokenizer.chat_template = "{% for message in messages %}CHAT {{ message.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    made: dict[str, Path] = {}
    return lambda kind: made.get(kind) or made.setdefault(kind, make(tmp_path_factory.mktemp(kind), kind))


def bi_encoder(folder: Path, **format_: object) -> BiEncoder:
    contract = EncodingContract(
        base_model=str(folder), query_prefix="query: ", query_max_length=64, passage_max_length=64
    )
    return BiEncoder.load(str(folder), contract.with_(**format_))


def reranker(folder: Path, **format_: object) -> CrossEncoder:
    contract = EncodingContract("rerank", str(folder), rerank_max_length=64, **format_)
    model = CrossEncoder.load(str(folder), contract)
    if model.head is not None:
        model.head.weight.data *= 20
        model.head.bias.data += 0.5
    return model


def close(left: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_allclose(left, right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_sentence_transformers_gives_the_same_vectors(kind, pooling, base, tmp_path):
    ours = bi_encoder(base(kind), pooling=pooling)
    save_consolidated(ours, tmp_path)
    peer = SentenceTransformer(str(tmp_path), device="cpu")
    close(peer.encode(PASSAGES), ours.encode_passages(PASSAGES))
    close(peer.encode(PASSAGES[:1]), ours.encode_passages(PASSAGES)[:1])  # a batch without padding
    close(peer.encode(QUERIES, prompt_name="query"), ours.encode_queries(QUERIES))


@pytest.mark.parametrize("kind", KINDS)
def test_two_encoders_load_as_one_model_that_takes_the_right_one(kind, base, tmp_path):
    ours = bi_encoder(base(kind), share_encoder=False)
    for weight in ours.query_model.parameters():
        weight.data *= 1.2
    save_consolidated(ours, tmp_path)
    queries, passages = ours.encode_queries(QUERIES), ours.encode_passages(PASSAGES)
    again = BiEncoder.load(str(tmp_path), contract_of_model(tmp_path))
    np.testing.assert_array_equal(again.encode_queries(QUERIES), queries)
    np.testing.assert_array_equal(again.encode_passages(PASSAGES), passages)
    assert np.abs(ours.encode(QUERIES, "query") - ours.encode(QUERIES, "passage")).max() > 1e-3
    peer = SentenceTransformer(str(tmp_path), device="cpu")
    close(peer.encode_query(QUERIES), queries)
    close(peer.encode_document(PASSAGES), passages)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_late_interaction_loads_as_a_multi_vector_encoder(kind, normalize, base, tmp_path):
    ours = bi_encoder(base(kind), pooling="colbert", normalize=normalize)
    save_consolidated(ours, tmp_path)
    expected = ours.encode_queries(QUERIES)
    again = BiEncoder.load(str(tmp_path), contract_of_model(tmp_path))
    np.testing.assert_array_equal(again.encode_queries(QUERIES), expected)
    for mine, theirs in zip(
        expected, MultiVectorEncoder(str(tmp_path), device="cpu").encode_query(QUERIES), strict=True
    ):
        close(np.asarray(theirs), mine[: len(theirs)])
        assert not mine[len(theirs) :].any()


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(("kind", "pooling"), [("bert", "cls"), ("modernbert", "avg"), ("llama", "weighted_avg")])
def test_sentence_transformers_gives_the_same_scores(kind, pooling, template, base, tmp_path):
    """The third passage is too long: what is cut agrees too."""
    ours = reranker(base(kind), prompt_template=template, pooling=pooling)
    expected = ours.score(QUERIES, PASSAGES)
    assert ours.cut.passages == 1 and np.ptp(expected) > 0.01
    save_consolidated(ours, tmp_path)
    peer = PeerCrossEncoder(str(tmp_path), device="cpu")
    close(peer.predict(list(zip(QUERIES, PASSAGES, strict=True))), expected)
    close(peer.predict([(QUERIES[0], PASSAGES[0])]), expected[:1])
    again = CrossEncoder.load(str(tmp_path), contract_of_model(tmp_path))
    np.testing.assert_array_equal(again.score(QUERIES, PASSAGES), expected)


@pytest.mark.parametrize("template", TEMPLATES[:2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_ready_reranker_stays_what_it_was(kind, template, tmp_path):
    ours = reranker(make(tmp_path / "base", kind, AutoModelForSequenceClassification), prompt_template=template)
    assert ours.head is None
    save_consolidated(ours, tmp_path / "saved")
    expected = ours.score(QUERIES, PASSAGES)
    close(PeerCrossEncoder(str(tmp_path / "saved"), device="cpu").predict(list(zip(QUERIES, PASSAGES, strict=True))),
          expected)  # fmt: skip
    again = CrossEncoder.load(str(tmp_path / "saved"), contract_of_model(tmp_path / "saved"))
    np.testing.assert_array_equal(again.score(QUERIES, PASSAGES), expected)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_tokenizer_like_llamas_agrees_too(template, tmp_path, caplog):
    ours = reranker(make(tmp_path / "base", "llama", tokenizer=byte_level()), prompt_template=template)
    save_consolidated(ours, tmp_path / "saved")
    queries, passages = ["why?", "ü {0}"], ["the pump", "🌊 " * 40]
    peer = PeerCrossEncoder(str(tmp_path / "saved"), device="cpu")
    close(peer.predict(list(zip(queries, passages, strict=True))), ours.score(queries, passages))
    assert "other tokens" not in caplog.text


def test_pairs_that_sentence_transformers_would_read_otherwise_are_announced(tmp_path, caplog):
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    ours = reranker(make(tmp_path / "base", "llama", tokenizer=tokenizer), prompt_template=TEMPLATES[1])
    save_consolidated(ours, tmp_path / "saved")
    assert "will read the pairs of this model with other tokens" in caplog.text

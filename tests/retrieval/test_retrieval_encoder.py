"""The encoder with the real embedded model, in fp32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.encoder import BiEncoder, tokenizer_hash

MODEL = "embedded:all-MiniLM-L6-v2"
CONTRACT = EncodingContract(query_max_length=256, passage_max_length=256)
TEXTS = [
    "A short one.",
    "Why does the pump stop?",
    "Grüße aus München — mit Umlauten, “quotes” and emoji 🌊.",
    "",
    "word " * 400,
    "The keel keeps the boat from drifting sideways; tacking zigzags into the wind. " * 3,
]


@pytest.fixture(scope="module")
def encoder() -> BiEncoder:
    return BiEncoder.load(MODEL, CONTRACT)


@pytest.mark.slow
def test_vectors_are_those_of_sentence_transformers(encoder):
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(resolve_model(MODEL), device="cpu")
    peer.max_seq_length = 256
    theirs = peer.encode(TEXTS, normalize_embeddings=True, batch_size=2)
    assert np.abs(encoder.encode_passages(TEXTS) - theirs).max() < 1e-5
    prompted = peer.encode(TEXTS, prompt="query: ", normalize_embeddings=True)
    encoder_with_prefix = BiEncoder(encoder.model, encoder.tokenizer, encoder.contract.with_(query_prefix="query: "))
    assert np.abs(encoder_with_prefix.encode_queries(TEXTS) - prompted).max() < 1e-5


def test_order_and_batching_do_not_move_a_vector(encoder):
    one = encoder.encode(TEXTS, "passage")
    order = [3, 5, 0, 4, 2, 1]
    np.testing.assert_allclose(encoder.encode([TEXTS[index] for index in order], "passage"), one[order], atol=2e-6)
    np.testing.assert_allclose(encoder.encode(TEXTS, "passage", batch_tokens=1), one, atol=2e-6)


def test_vectors_have_the_promised_shape_type_and_length(encoder):
    vectors = encoder.encode(TEXTS, "query")
    assert vectors.shape == (6, 384) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.encode([], "query").shape == (0, 384)


def test_every_text_is_reported_once(encoder):
    seen: list[int] = []
    encoder.encode(TEXTS, "passage", batch_tokens=300, on_batch=seen.append)
    assert sum(seen) == len(TEXTS) and len(seen) > 1


def test_each_kind_has_its_own_length(encoder):
    model = BiEncoder(encoder.model, encoder.tokenizer, encoder.contract.with_(query_max_length=16))
    assert [len(item) for item in model.tokenize(["word " * 400], "query")] == [16]
    assert [len(item) for item in model.tokenize(["word " * 400], "passage")] == [256]


def test_a_title_and_a_prefix_stand_before_the_passage(encoder):
    model = BiEncoder(encoder.model, encoder.tokenizer, encoder.contract.with_(passage_prefix="passage: "))
    titled = model.encode_passages(["keeps it straight"], ["Keel"])
    np.testing.assert_allclose(titled, model.encode(["passage: Keel keeps it straight"], "passage"), atol=1e-6)


def test_loading_fills_in_what_describes_the_weights(encoder):
    assert (encoder.contract.dimension, encoder.contract.dtype) == (384, "float32")
    before = tokenizer_hash(encoder.tokenizer)
    encoder.tokenizer(["a", "b c"], truncation=True, max_length=4, padding=True)
    assert tokenizer_hash(encoder.tokenizer) == before == encoder.contract.tokenizer_hash


def test_lengths_beyond_the_model_and_unknown_models_are_refused(tmp_path):
    with pytest.raises(PipelineError, match="reads at most 512 tokens"):
        BiEncoder.load(MODEL, EncodingContract(passage_max_length=513))
    with pytest.raises(PipelineError, match="cannot load the model"):
        BiEncoder.load(str(tmp_path), CONTRACT)
    with pytest.raises(PipelineError, match="no embedded model 'nothing'"):
        BiEncoder.load("embedded:nothing", CONTRACT)


def test_padding_on_the_left_gives_the_same_vectors(tiny_model):
    for pooling in ("avg", "weighted_avg", "cls", "last", "colbert"):
        model = BiEncoder.load(str(tiny_model("llama")), CONTRACT.with_(
            pooling=pooling, query_max_length=64, passage_max_length=64
        ))  # fmt: skip
        ids, mask = model.collate(model.tokenize(["the pump", "why does the valve of the pump leak"], "query"))
        shift = int((mask[0] == 0).sum())
        with torch.no_grad():
            right, left = model(ids, mask), model(*(torch.roll(item, shift, 1)[:1] for item in (ids[:1], mask[:1])))
        if pooling == "colbert":
            left = torch.roll(left, -shift, 1)
        torch.testing.assert_close(left, right[:1], atol=1e-5, rtol=1e-4)


def test_two_encoders_start_equal_and_each_reads_its_own_kind(tiny_model):
    contract = CONTRACT.with_(share_encoder=False, query_max_length=64, passage_max_length=64)
    model = BiEncoder.load(str(tiny_model("bert")), contract)
    one = BiEncoder.load(str(tiny_model("bert")), contract.with_(share_encoder=True))
    assert sum(p.numel() for p in model.parameters()) == 2 * sum(p.numel() for p in one.parameters())
    before = model.encode(TEXTS, "passage")
    np.testing.assert_array_equal(model.encode(TEXTS, "query"), before)
    for weight in model.query_model.parameters():
        weight.data *= 1.5
    np.testing.assert_array_equal(model.encode(TEXTS, "passage"), before)
    assert np.abs(model.encode(TEXTS, "query") - before).max() > 1e-3


def test_late_interaction_gives_a_vector_for_each_token(tiny_model):
    model = BiEncoder.load(str(tiny_model("bert")), CONTRACT.with_(
        pooling="colbert", query_max_length=64, passage_max_length=64
    ))  # fmt: skip
    lengths = [len(item) for item in model.tokenize(TEXTS, "passage")]
    vectors = model.encode(TEXTS, "passage", batch_tokens=70)
    assert vectors.shape == (len(TEXTS), max(lengths), 16)
    norms = np.linalg.norm(vectors, axis=-1)
    np.testing.assert_allclose(norms, np.arange(max(lengths)) < np.array(lengths)[:, None], atol=1e-5)


def test_a_batch_is_padded_to_a_multiple_but_not_beyond_the_model(encoder, tiny_model):
    ids, mask = encoder.collate([[101, 5, 102], [101, 102]], 8)
    assert ids.tolist() == [[101, 5, 102, 0, 0, 0, 0, 0], [101, 102, 0, 0, 0, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
    assert ids.dtype == mask.dtype == torch.int64
    short = BiEncoder.load(str(tiny_model("bert")), CONTRACT.with_(query_max_length=64, passage_max_length=64))
    assert short.collate([[7] * 65], 64)[0].shape == (1, 66)
    assert short.collate([np.arange(3), []])[1].tolist() == [[1, 1, 1], [0, 0, 0]]

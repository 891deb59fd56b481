"""The encoder with the real embedded model, in fp32."""

from __future__ import annotations

import numpy as np
import pytest

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

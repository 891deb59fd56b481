"""The parity gate and the texts it uses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_export.parity import Reference
from pipeline_export.texts import ParityText, parity_texts
from pipeline_export.vector_parity import compare

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.run.files import write_jsonl

TEXTS = [ParityText("query", "q")] * 3 + [ParityText("passage", "p")] * 9
RNG = np.random.default_rng(7)
VECTORS = RNG.normal(size=(len(TEXTS), 8)).astype(np.float32)
TOKENS = [[row, *range(row)] for row in range(len(TEXTS))]


class Exported:
    """Gives prepared vectors for the prepared tokens; `change` disturbs a batch's vectors."""

    def __init__(self, change=lambda vectors: vectors, tokens=TOKENS):
        self.change, self.tokens, self.asked = change, list(tokens), iter(tokens)

    def tokenize(self, texts, kind):
        return [next(self.asked)]

    def forward(self, tokens):
        return self.change(VECTORS[[item[0] for item in tokens]].copy())


def gate(exported, min_cosine=0.9999):
    return compare(Reference(TOKENS, VECTORS, 1.0), exported, TEXTS, "fp32", min_cosine)


def test_equal_vectors_pass():
    parity = gate(Exported())
    parity.require()
    assert parity.cosine == pytest.approx(1) and parity.max_abs_diff == 0 and parity.top_agreement == 1
    assert (parity.shortest, parity.longest) == (1, len(TEXTS))


def test_a_difference_that_shows_only_in_padded_batches_is_found():
    parity = gate(Exported(lambda vectors: vectors if len(vectors) == 1 else vectors + 0.5))
    assert parity.batches[0]["min_cosine"] == pytest.approx(1)
    with pytest.raises(PipelineError, match="lowest cosine"):
        parity.require()


def test_one_bad_text_is_named():
    def spoil(vectors):
        vectors[np.isclose(vectors, VECTORS[10]).all(1)] *= -1
        return vectors

    with pytest.raises(PipelineError, match="a passage of 11 tokens"):
        gate(Exported(spoil)).require()


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vectors_that_are_no_directions_fail(value):
    parity = gate(Exported(lambda vectors: np.full_like(vectors, value)))
    assert not parity.passed and np.isfinite(parity.max_abs_diff)
    assert parity.as_record()["passed"] is False


def test_an_engine_for_short_texts_may_see_queries_alone():
    parity = compare(Reference(TOKENS[:3], VECTORS[:3], 1.0), Exported(), TEXTS[:3], "fp32", 0.9999)
    assert parity.passed and parity.top_agreement == 1


def test_another_tokenizer_fails_even_if_vectors_agree():
    other = [*TOKENS[:-1], [len(TEXTS) - 1, 99]]
    with pytest.raises(PipelineError, match="splits 1 of 12 texts"):
        gate(Exported(tokens=other)).require()


@given(count=st.integers(8, 200), available=st.integers(1, 60))
def test_texts_are_spread_over_lengths_and_none_is_lost_by_mixing(tmp_path_factory, count, available):
    folder = tmp_path_factory.mktemp("beir")
    write_jsonl(folder / "corpus.jsonl", [{"_id": str(n), "text": "x" * (n + 1)} for n in range(available)])
    write_jsonl(folder / "queries.jsonl", [{"_id": str(n), "text": "y" * (n + 1)} for n in range(available)])
    contract = EncodingContract(query_prefix="Q:", passage_prefix="P:", query_max_length=8, passage_max_length=16)
    texts = parity_texts(folder, contract, count)
    queries = [item.text for item in texts if item.kind == "query"]
    passages = [item.text for item in texts if item.kind == "passage"]
    assert all(text.startswith("Q:") for text in queries) and all(text.startswith("P:") for text in passages)
    assert {"Q:ok"} < set(queries) and {"P:ok"} < set(passages)
    assert max(map(len, passages)) >= 16 * 16
    assert len(texts) <= max(count, 8) and len(passages) == min(available, count - max(1, count // 4 - 2) - 4) + 2
    if len(passages) > 4:
        assert {"P:x", "P:" + "x" * available} <= set(passages)


def test_a_file_without_text_is_named(tmp_path):
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "1", "text": "a"}])
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "1"}])
    with pytest.raises(PipelineError, match=r"corpus\.jsonl:1: lacks text"):
        parity_texts(tmp_path, EncodingContract(), 8)

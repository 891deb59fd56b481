"""The parity gate of rerankers and the pairs it uses."""

from __future__ import annotations

import numpy as np
import pytest
from pipeline_export.families import FAMILIES
from pipeline_export.judge import Judge
from pipeline_export.logit_parity import compare
from pipeline_export.pairs import MOST_RELEVANT, ParityPair, parity_pairs
from pipeline_export.parity import Reference

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.retrieval.onnx_scorer import PairIds
from pipeline.schemas.export import RerankExportConfig

PAIRS = [ParityPair(f"q{number // 4}", f"p{number}") for number in range(12)]
LOGITS = np.random.default_rng(7).normal(size=12).astype(np.float32)
TOKENS = [([number, *range(number)], 1) for number in range(12)]


class Exported:
    """Gives prepared logits for the prepared tokens; `change` disturbs a batch's logits."""

    def __init__(self, logits=LOGITS, change=lambda logits: logits, tokens=TOKENS):
        self.logits, self.change, self.tokens = logits, change, iter(tokens)

    def tokenize(self, pairs):
        return [PairIds(*next(self.tokens))]

    def forward(self, tokens):
        return self.change(self.logits[[item[0] for item in tokens]].copy())


def gate(exported, logits=LOGITS, limit=1e-3):
    return compare(Reference(TOKENS, logits, 1.0), exported, PAIRS, "fp32", limit)


def test_equal_logits_pass():
    parity = gate(Exported())
    parity.require()
    assert (parity.logit_diff, parity.order_agreement, parity.top1_agreement) == (0, 1, 1)
    assert (parity.shortest, parity.longest, parity.spread) == (1, 12, pytest.approx(LOGITS.std()))


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
@pytest.mark.parametrize(("share", "passes"), [(0.9e-3, True), (1.1e-3, False)])
def test_the_limit_is_a_share_of_the_spread_whatever_the_scale(scale, share, passes):
    logits = LOGITS * np.float32(scale)
    parity = gate(Exported(logits, lambda found: found + np.float32(share * logits.std())), logits)
    assert parity.passed is passes and parity.order_agreement == 1


def test_a_difference_that_shows_only_in_padded_batches_is_found():
    parity = gate(Exported(change=lambda logits: logits if len(logits) == 1 else -logits))
    assert parity.batches[0]["max_abs_diff"] == 0 and parity.order_agreement == parity.top1_agreement == 0
    with pytest.raises(PipelineError, match="does not give torch's logits"):
        parity.require()


def test_one_bad_pair_is_named_and_the_ranking_it_spoils_is_counted():
    first = int(LOGITS[:4].argmax())
    parity = gate(Exported(change=lambda logits: np.where(logits == LOGITS[first], -9, logits)))
    with pytest.raises(PipelineError, match=f"a pair of {first + 1} tokens"):
        parity.require()
    assert parity.order_agreement == pytest.approx(15 / 18) and parity.top1_agreement == pytest.approx(2 / 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_fail(value):
    parity = gate(Exported(change=lambda logits: np.full_like(logits, value)))
    assert not parity.passed and np.isfinite(parity.max_abs_diff) and np.isfinite(parity.logit_diff)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_gives_no_numbers_in_torch_is_told_apart_from_a_bad_export(value):
    with pytest.raises(PipelineError, match="torch itself") as caught:
        Reference.of(TOKENS, lambda tokens: np.full(len(tokens), value, np.float32))
    assert "training failed" in caught.value.fix


def test_an_engine_that_takes_no_sample_is_not_judged(tmp_path):
    judge = Judge(FAMILIES[RerankExportConfig], None, PAIRS[3:], Reference(TOKENS[3:], LOGITS[3:], 1.0), tmp_path, None)
    with pytest.raises(PipelineError, match="it takes 3 tokens, the shortest sample has 4") as caught:
        judge(Exported(), "fp32", "TensorRT engine", longest=3)
    assert "trt_max_seq_len" in caught.value.fix


def test_equal_scores_have_no_spread_to_divide_by():
    flat = np.full(12, 5, dtype=np.float32)
    assert gate(Exported(flat), flat).passed
    assert gate(Exported(flat, lambda logits: logits + np.float32(1e-6)), flat).passed
    assert not gate(Exported(flat, lambda logits: logits + np.float32(0.1)), flat).passed


@pytest.mark.parametrize("other", [([11, 99], 1), (TOKENS[11][0], 2)], ids=["ids", "second segment"])
def test_other_tokens_or_token_types_fail_even_if_logits_agree(other):
    with pytest.raises(PipelineError, match="splits 1 of 12 pairs"):
        gate(Exported(tokens=[*TOKENS[:-1], other])).require()


def test_pairs_hold_answers_and_others_and_edges(beir):
    contract = EncodingContract("rerank", passage_prefix="P:", rerank_max_length=32)
    pairs = parity_pairs(beir, contract, 24)
    assert len(pairs) == len(set(pairs)) <= 24
    assert ParityPair("ok", "ok") in pairs and max(len(pair.query) for pair in pairs) == 16 * 32
    asked = [pair for pair in pairs if pair.query == "E-104"]
    assert any("means that the sieve" in pair.passage for pair in asked) and len(asked) > MOST_RELEVANT
    assert all(pair.passage.startswith("P:") for pair in asked if len(pair.passage) < 500)


@pytest.mark.parametrize("count", [8, 16, 64])
def test_built_in_pairs_compare_passages_of_one_query(count):
    pairs = parity_pairs(None, EncodingContract("rerank", rerank_max_length=64), count)
    assert 8 <= len(pairs) <= count
    assert max(sum(pair.query == other.query for pair in pairs) for other in pairs) >= 4


def test_a_folder_without_judgements_is_named(beir, tmp_path):
    for name in ("corpus.jsonl", "queries.jsonl"):
        (tmp_path / name).write_bytes((beir / name).read_bytes())
    with pytest.raises(PipelineError, match=r"test\.tsv does not exist"):
        parity_pairs(tmp_path, EncodingContract("rerank"), 8)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t0\n")
    with pytest.raises(PipelineError, match="judges no question"):
        parity_pairs(tmp_path, EncodingContract("rerank"), 8)

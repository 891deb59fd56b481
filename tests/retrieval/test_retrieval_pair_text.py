"""Pairs of a query and a passage as tokens: form, lengths, what is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.pair_text import PairTokenizer, share_room

TEMPLATE = "question:{query} \n \n passage:{passage}"
MINILM = AutoTokenizer.from_pretrained(resolve_model("embedded:all-MiniLM-L6-v2"))


def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer like Llama's: bytes, a token before the text and none after it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    rules = Tokenizer(models.BPE({letter: number for number, letter in enumerate(["<s>", *letters])}, []))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 0)]
    )
    rules.add_special_tokens(["<s>"])
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<s>", pad_token="<s>")


TOKENIZERS = {"wordpiece": MINILM, "bytes": byte_level()}


def pairs(template: str | None, length: int = 64, tokenizer: str = "wordpiece") -> PairTokenizer:
    contract = EncodingContract("rerank", prompt_template=template, rerank_max_length=length)
    return PairTokenizer(TOKENIZERS[tokenizer], contract)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_pair_without_template_is_the_tokenizers_own(tokenizer):
    own = TOKENIZERS[tokenizer]("why?", "The pump – ü 🌊.", return_token_type_ids=True)
    ids, starts = pairs(None, 99, tokenizer)(["why?"], ["The pump – ü 🌊."])
    assert ids == [own["input_ids"]] and starts == [own["token_type_ids"].index(1)]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("template", [TEMPLATE, "{passage} answers {query}!", "a{query}{passage}"])
def test_a_template_is_tokenised_as_one_text_and_braces_are_plain(template, tokenizer):
    query, passage = "is {0} {query} {", "a {passage} of {} braces }"
    read = pairs(template, 256, tokenizer)
    ids, starts = read([query], [passage])
    text = template.split("{query}")
    whole = query.join(part.replace("{passage}", passage) for part in text)
    assert ids == [TOKENIZERS[tokenizer](whole)["input_ids"]] and starts == [len(ids[0])]
    assert (read.cut.pairs, read.cut.passages, read.cut.queries) == (1, 0, 0)


@pytest.mark.parametrize("template", [None, TEMPLATE, "{passage} answers {query}!", "q {query} p {passage} the end."])
def test_a_long_passage_is_cut_and_nothing_else(template):
    read = pairs(template, 40)
    query, passage = "why does the pump stop", " ".join(["word"] * 99)
    (ids,), _ = read([query], [passage])
    text = MINILM.decode(ids).replace(" ##", "")
    assert len(ids) == 40 and query in text and text.startswith("[CLS]") and text.endswith("[SEP]")
    for part in (template or "{query}{passage}").replace("{query}", "|").replace("{passage}", "|").split("|"):
        assert MINILM.decode(MINILM(part, add_special_tokens=False)["input_ids"]) in text
    assert text.count("word") > 10
    assert (read.cut.pairs, read.cut.passages, read.cut.queries) == (1, 1, 0)


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_long_query_leaves_the_passage_a_quarter(template):
    read = pairs(template, 80)
    (ids, short), _ = read(["query " * 200] * 2, ["word " * 200, "word"])
    assert len(ids) == 80 and len(short) == 80
    text = MINILM.decode(ids)
    assert text.count("word") == 20 and text.count("query") > 40
    assert MINILM.decode(short).count("word") == 1
    assert (read.cut.pairs, read.cut.passages, read.cut.queries) == (2, 1, 2)
    assert str(read.cut) == "2 pairs, 1 with a cut passage, 2 with a cut query"


words = st.lists(st.sampled_from(["pump", "x", "leaking", "ü", "🌊", "{query}", "unbelievably"]), max_size=60)


@settings(max_examples=30, deadline=None)
@given(
    words, words, st.integers(32, 90), st.sampled_from([None, TEMPLATE, "{passage} / {query}."]),
    st.sampled_from(sorted(TOKENIZERS)),
)  # fmt: skip
def test_no_pair_is_ever_too_long_nor_shorter_than_it_must_be(query, passage, length, template, tokenizer):
    read, unlimited = pairs(template, length, tokenizer), pairs(template, 100_000, tokenizer)
    texts = [" ".join(query)], [" ".join(passage)]
    (ids,), (start,) = read(*texts)
    (whole,), _ = unlimited(*texts)
    assert len(ids) == min(length, len(whole)) and start <= len(ids)
    assert (read.cut.passages + read.cut.queries > 0) == (len(whole) > length)


@given(st.integers(0, 999), st.integers(0, 999), st.integers(2, 600), st.integers(16, 600))
def test_the_room_is_used_up_and_both_keep_something(query, passage, room, length):
    kept = share_room(query, passage, room, length)
    assert 0 <= kept.query <= query and 0 <= kept.passage <= passage
    assert kept.query + kept.passage == min(room, query + passage)
    assert kept.passage > 0 or passage == 0
    assert kept.query == query or kept.passage <= max(length // 4, 16)


def test_what_cannot_work_is_said():
    with pytest.raises(PipelineError, match="rerank_max_length=16 leaves no room"):
        pairs("one two three four five six seven eight nine ten eleven twelve thirteen {query} {passage}", 16)(
            ["why"], ["so"]
        )
    for template in ("only {query}", "{query} {query} {passage}"):
        with pytest.raises(PipelineError, match="once each"):
            pairs(template)
    with pytest.raises(ValueError, match="1 queries for 2 passages"):
        pairs(None)(["a"], ["b", "c"])
    assert pairs(None)([], []) == ([], [])


def test_the_callers_tokenizer_is_left_alone():
    before = MINILM.backend_tokenizer.to_str()
    pairs(TEMPLATE, 32)(["a"], ["word " * 99])
    assert MINILM.backend_tokenizer.to_str() == before

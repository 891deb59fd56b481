from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.assets import resolve_model
from pipeline.errors import PipelineError
from pipeline.retrieval.text_ends import set_text_ends


@pytest.fixture
def bert():
    return AutoTokenizer.from_pretrained(resolve_model("embedded:all-MiniLM-L6-v2"))


def plain(**tokens):
    backend = Tokenizer(models.WordLevel({"a": 0, "<s>": 1, "</s>": 2, "b": 3}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)


@pytest.mark.parametrize(
    ("bos", "eos", "expected"),
    [(None, None, [0, 3]), (True, None, [1, 0, 3]), (None, True, [0, 3, 2]), (True, True, [1, 0, 3, 2])],
)
def test_ends_are_put_around_a_text(bos, eos, expected):
    tokenizer = plain(bos_token="<s>", eos_token="</s>")
    set_text_ends(tokenizer, bos, eos)
    assert tokenizer("a b")["input_ids"] == expected


def test_ends_count_towards_the_length():
    tokenizer = plain(bos_token="<s>", eos_token="</s>")
    set_text_ends(tokenizer, True, True)
    assert tokenizer("a b a b a b", truncation=True, max_length=4)["input_ids"] == [1, 0, 3, 2]


def test_the_ends_of_bert_can_be_taken_away_and_stay_where_nothing_is_said(bert):
    before = bert("lava")["input_ids"]
    set_text_ends(bert, True, None)
    assert bert("lava")["input_ids"] == before
    set_text_ends(bert, None, False)
    assert bert("lava")["input_ids"] == before[:-1]


def test_a_token_that_is_not_there_is_an_error():
    with pytest.raises(PipelineError, match="add_bos_token=true"):
        set_text_ends(plain(eos_token="</s>"), True, None)

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.chunking import chunk_document
from pipeline_sdg.chunking.tokens import estimated_tokens, token_counter
from pipeline_sdg.documents import Document

from pipeline.assets import resolve_model
from pipeline.errors import PipelineError
from pipeline.schemas.sdg import SdgConfig

MINILM = Path(resolve_model("embedded:all-MiniLM-L6-v2")) / "tokenizer.json"
COUNTER = token_counter(None)


def cut(text: str, **changes: object) -> list[dict]:
    config = SdgConfig(chunking="tokens", **changes)
    return [passage.chunk for passage in chunk_document(Document("a.md", text), config)]


def test_counting_is_that_of_the_tokenizer_without_its_length_limit() -> None:
    assert COUNTER.count("hello unbelievable world") == 3
    assert COUNTER.count("hello " * 1000) == 1000
    assert token_counter(str(MINILM)).count("hello") == token_counter(str(MINILM.parent)).count("hello") == 1


@pytest.mark.parametrize("text", ["ภาษาไทยไม่มีช่องว่าง" * 20, "QUJDREVG" * 50])
def test_what_the_vocabulary_does_not_know_is_not_one_token(text: str) -> None:
    assert COUNTER.count(text) >= len(text) / 4
    parts = list(COUNTER.cut(text, 20))
    assert "".join(parts) == text
    assert all(COUNTER.count(part) <= 20 for part in parts)


def test_cutting_is_between_words_where_there_are_some() -> None:
    text = "unbelievable hyperparameterization " * 20
    parts = list(COUNTER.cut(text, 16))
    assert " ".join(parts).split() == text.split()
    assert len(parts) > 2 and all(COUNTER.count(part) <= 16 for part in parts)


@pytest.mark.parametrize("content", ["", "{}", json.dumps({"model": {"type": "None"}})])
def test_a_wrong_tokenizer_file_is_one_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(PipelineError, match=r"tokenizer\.json does not exist"):
        token_counter(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(PipelineError, match=r"is not a tokenizer"):
        cut("Text.", chunk_tokenizer=str(tmp_path / f"../{tmp_path.name}/tokenizer.json"))


def test_passages_are_as_long_as_they_may_be_and_share_whole_sentences() -> None:
    text = " ".join(f"Sentence number {number} is here." for number in range(40))
    chunks = cut(text, chunk_tokens=32, chunk_overlap=8)
    sizes = [COUNTER.count(chunk["text"]) for chunk in chunks]
    assert max(sizes) <= 32 and min(sizes[:-1]) > 24
    for left, right in pairwise(chunks):
        shared = right["text"].split(". ")[0]
        assert left["text"].rstrip(".").endswith(shared)
        assert left["end"] - right["start"] == len(shared.split())
    assert all(left["end"] == right["start"] for left, right in pairwise(cut(text, chunk_tokens=32, chunk_overlap=0)))


def test_a_heading_begins_a_passage_and_nothing_is_shared_over_it() -> None:
    text = "# One\n" + "Some words stand here. " * 6 + "\n# Two\n" + "Other words stand here. " * 6
    chunks = cut(text, chunk_tokens=64, chunk_overlap=16)
    assert [chunk["title"] for chunk in chunks] == ["One", "Two"]
    assert chunks[1]["text"].startswith("Two\nOther")
    few = cut("# One\nWords.\n# Two\nWords.\n# Three\nWords.", chunk_tokens=64)
    assert len(few) == 1  # too little for passages of their own


def test_rows_items_and_code_are_cut_only_if_longer_than_a_passage() -> None:
    rows = "\n".join(f"| row {number} | value. Of {number} |" for number in range(30))
    items = "\n".join(f"- item {number} has two sentences. This is one." for number in range(30))
    code = "```\nfor number in numbers:\n    print(number)\n    total += number\n```"
    for chunk in cut(f"{rows}\n\n{items}\n\n{code}", chunk_tokens=40, chunk_overlap=0):
        assert COUNTER.count(chunk["text"]) <= 40
        for line in chunk["text"].split("\n"):
            assert line.startswith("- item") == line.endswith("This is one.")
            assert line.startswith("| row") == line.endswith(" |")
        assert ("for number" in chunk["text"]) == ("total +=" in chunk["text"])
    long = "```\n" + "\n".join(f"print(number, {number})" for number in range(40)) + "\n```"
    pieces = cut(long, chunk_tokens=40, chunk_overlap=0)
    assert len(pieces) > 5
    assert [line for chunk in pieces for line in chunk["text"].split("\n")] == long.split("\n")[1:-1]


PARTS = [
    *(
        "Alpha beta gamma.",
        "Is it so?",
        "\n\n",
        "delta " * 30,
        "\n# Zeta\n",
        "\n- eta theta. Iota.\n",
        "漢字かな。" * 9,
    ),
    *("\n| a | b. C |\n" * 3, "\n```\nx = 1\n\n  y\n```\n", "x" * 300, "ภาษาไทย" * 20),
]


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=25), st.integers(16, 80), st.integers(0, 40))
def test_nothing_is_lost_and_only_the_overlap_is_there_twice(found: list[str], most: int, overlap: int) -> None:
    text = " ".join(found)
    chunks = cut(text, chunk_tokens=most, chunk_overlap=overlap)
    words: list[str] = []
    for chunk in chunks:
        assert chunk["start"] <= len(words) < chunk["end"] or not chunk["text"]
        assert words[chunk["start"] :] == chunk["text"].split()[: len(words) - chunk["start"]]
        assert COUNTER.count(" ".join(words[chunk["start"] :])) <= overlap + 1
        words = words[: chunk["start"]] + chunk["text"].split()
        assert COUNTER.count(chunk["text"]) <= most + chunk["sentence_count"]
    assert "".join(words) == "".join(word for word in text.split() if word not in {"#", "```"})
    assert chunks == cut(text, chunk_tokens=most, chunk_overlap=overlap)


def test_the_estimate_knows_scripts() -> None:
    assert estimated_tokens("word" * 100) == 100
    assert estimated_tokens("漢字" * 50) == 100
    assert estimated_tokens("слово" * 40) == 100
    assert estimated_tokens("") == 0
    assert estimated_tokens("caf\xe9") == 1

import hashlib
import json
import socket
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.chunking import Passage, chunk_document, title_of
from pipeline_sdg.chunking.pieces import LONGEST_SENTENCE, atoms, length
from pipeline_sdg.documents import Document, survey

from pipeline.schemas.sdg import SdgConfig

SCRATCH = Path(tempfile.gettempdir())

DEMO = "64a7a9a22e7ea053de54befaf588b207b17d38e66bc34e5f589a172d18648017"

MARKDOWN = """---
title: "Pump manual"
rank: 3
---

The pump weighs 4.5 kg, i.e. little. Dr. Moss built it.

## Alarms
L-401 is yellow. It
clears by itself.

- first item. It has two sentences,
  and a second line.
- second item

```
run(a). stop

    run(b)
```

| Key | Value |
|-----|-------|
| a. B | c |

Install
-------
***
Last words.
"""


def sentences(text: str, language: str = "en") -> list[str]:
    return [piece.text for atom in atoms(text, language) for piece in atom.pieces]


def cut(text: str, **changes: object) -> list[Passage]:
    return chunk_document(Document("notes/a.md", text), SdgConfig(**changes))


def test_markdown_is_split_at_sentences_and_headings_stay_with_their_text() -> None:
    assert sentences(MARKDOWN) == [
        "Pump manual\nThe pump weighs 4.5 kg, i.e. little.",
        "Dr. Moss built it.",
        "Alarms\nL-401 is yellow.",
        "It clears by itself.",
        "- first item.",
        "It has two sentences, and a second line.",
        "- second item",
        "run(a). stop\n\n    run(b)",
        "| Key | Value |\n|-----|-------|\n| a. B | c |",
        "Install\nLast words.",
    ]


def test_items_code_and_table_keep_their_lines_in_a_passage() -> None:
    [passage] = cut("One.\n- a. B.\n- c\n```\nx\n  y\n```\n|a|\n|b|\n\nTwo.", sentences_per_chunk=9)
    assert passage.chunk["text"] == "One.\n- a. B.\n- c\nx\n  y\n|a|\n|b| Two."


def test_headings_in_a_row_and_at_the_end_are_kept() -> None:
    assert sentences("# One\n## Two\n\nText here.\n\n# Last") == ["One\nTwo\nText here.", "Last"]


def test_splitting_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("network used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert sentences("Das ist z.B. gut. Ja.", "de") == ["Das ist z.B. gut.", "Ja."]
    assert sentences("这是第一句。这是第二句！", "zh") == ["这是第一句。", "这是第二句！"]


@pytest.mark.parametrize(
    "text", ["word " * 1000, "漢字" * 2000, "ภาษาไทย" * 700, "QUJD" * 9000, "x\n" * 500, "这是一句话，" * 900]
)
@pytest.mark.parametrize("wrapped", ["{}", "- {}", "```\n{}\n```", "| {} |"])
def test_text_without_full_stops_is_cut_to_a_sane_length(text: str, wrapped: str) -> None:
    pieces = sentences(wrapped.format(text if "{} |" not in wrapped else text.replace("\n", " ")))
    assert len(pieces) > 2
    assert max(length(piece) for piece in pieces) <= LONGEST_SENTENCE
    kept = "".join("".join(pieces).split()).strip("-|")
    assert kept == "".join(text.split())


def test_a_table_is_cut_between_its_rows() -> None:
    pieces = sentences("\n".join(f"| {number} | cell. Number |" for number in range(300)))
    assert len(pieces) > 10
    assert [line for piece in pieces for line in piece.split("\n")] == [
        f"| {number} | cell. Number |" for number in range(300)
    ]


def test_an_item_or_code_is_moved_whole_to_the_next_passage_unless_it_is_longer_than_one() -> None:
    item = "- " + " ".join(f"Sentence {number}." for number in range(3))
    code = "```\n" + "\n".join(f"call({number}) " + "x " * 60 for number in range(3)) + "\n```"
    counts = [
        passage.chunk["sentence_count"] for passage in cut(f"One.\n\n{item}\n{code}\n\nTwo.", sentences_per_chunk=3)
    ]
    assert counts == [1, 3, 3, 1]
    counts = [passage.chunk["sentence_count"] for passage in cut(f"{item}\n\nTwo.", sentences_per_chunk=2)]
    assert counts == [2, 2]


def test_chunk_records_have_the_documented_fields() -> None:
    chunks = [passage.chunk for passage in cut("One two. Three four. Five six. Seven eight.", sentences_per_chunk=3)]
    assert chunks == [
        {
            "text": "One two. Three four. Five six.",
            "title": "a",
            "start": 0,
            "end": 6,
            "sentence_count": 3,
            "word_count": 6,
            "chunk_id": 1,
            "doc_chunk_index": 1,
        },
        {
            "text": "Seven eight.",
            "title": "a",
            "start": 6,
            "end": 8,
            "sentence_count": 1,
            "word_count": 2,
            "chunk_id": 2,
            "doc_chunk_index": 2,
        },
    ]


def test_the_heading_path_is_the_title() -> None:
    text = "Before.\n# Guide\nA.\n## Install\nB.\n### Linux\nC.\n## Use\nD.\n# Other\nE."
    titles = [passage.chunk["title"] for passage in cut(text, sentences_per_chunk=1)]
    assert titles == ["Guide", "Guide", "Guide > Install", "Guide > Install > Linux", "Guide > Use", "Other"]
    titles = [passage.chunk["title"] for passage in cut(text, sentences_per_chunk=2)]
    assert titles == ["Guide", "Guide > Install", "Guide"]  # what both have in common, else the document's
    assert [passage.chunk["title"] for passage in cut("---\ntitle: T\n---\nA.\n## S\nB.", sentences_per_chunk=1)] == [
        "T",
        "T > S",
    ]


def test_no_chunking_keeps_the_document_verbatim_with_its_id_and_title() -> None:
    [passage] = cut("\n# T\n\nOne two.\n\nThree.\n", chunking="none")
    assert passage.chunk["text"] == "# T\n\nOne two.\n\nThree."
    assert passage.sentences == ("T\nOne two.", "Three.")
    assert (passage.chunk["id"], passage.chunk["title"]) == ("notes/a.md", "T")
    row = Document("faq.jsonl#7", "One two.", "A title", "7")
    [passage] = chunk_document(row, SdgConfig(chunking="none"))
    assert (passage.chunk["id"], passage.chunk["title"]) == ("7", "A title")


def test_titles() -> None:
    assert title_of(Document("x/a.md", MARKDOWN)) == "Pump manual"
    assert title_of(Document("x/a.md", "text\n# Head #\n")) == "Head"
    assert title_of(Document("x/a.md", "text\n# Head #\n", "Own")) == "Own"
    assert title_of(Document("x/a.md", "# About C#\n")) == "About C#"
    assert title_of(Document("x/a.md", "# a" + " " * 50_000 + "b ##")).endswith(" b")
    assert title_of(Document("x/lift-pump_v2.md", "text")) == "lift pump v2"
    assert title_of(Document("x/faq.jsonl#7", "text", "", "7")) == ""


def test_the_demo_corpus_is_cut_as_ever() -> None:
    config = SdgConfig(corpus_dir="data/demo/corpus")
    found = []
    for document in survey(config, SCRATCH).documents():
        chunks = [passage.chunk for passage in chunk_document(document, config)]
        assert all(chunk["title"] for chunk in chunks)
        found.append([{key: value for key, value in chunk.items() if key != "title"} for chunk in chunks])
    assert hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest() == DEMO


PARTS = [
    *("Alpha beta.", "Gamma!", "Is it so?", "\n\n", "delta epsilon.", "\n", "\n# Zeta\n", "\n- eta theta. Iota.\n"),
    *("\n| a | b. C |\n", "\n```\nx = 1\n\n  y\n```\n", "漢字かな。", "\n1. one\n   two\n\n   three\n", "x" * 500),
]


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=30), st.integers(1, 6))
def test_no_word_is_lost_and_positions_run_on(found: list[str], per_chunk: int) -> None:
    text = " ".join(found)
    passages = cut(text, sentences_per_chunk=per_chunk)
    chunks = [passage.chunk for passage in passages]
    marks = {"#", "```"}
    words = [word for chunk in chunks for word in chunk["text"].split()]
    assert "".join(words) == "".join(word for word in text.split() if word not in marks)
    assert [chunk["chunk_id"] for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert all(left["end"] == right["start"] for left, right in pairwise(chunks))
    assert all(words[chunk["start"] : chunk["end"]] == chunk["text"].split() for chunk in chunks)
    assert all(chunk["sentence_count"] <= per_chunk for chunk in chunks)
    assert passages == cut(text, sentences_per_chunk=per_chunk)
    if per_chunk >= 2:
        assert sum(chunk["text"].count("- eta theta. Iota.") for chunk in chunks) == text.count("- eta theta. Iota.")

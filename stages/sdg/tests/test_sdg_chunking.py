import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.chunking import (
    LONGEST_SENTENCE,
    chunk_document,
    sections,
    split_sentences,
    spread,
    title_of,
    windows_of,
)
from pipeline_sdg.documents import Document

MARKDOWN = """---
title: "Pump manual"
rank: 3
---

The pump weighs 4.5 kg, i.e. little. Dr. Moss built it.

## Alarms
L-401 is yellow. It
clears by itself.

- first item
- second item

```
run(a). stop

run(b)
```
"""


def test_markdown_is_split_at_sentences_and_headings_stay_with_their_text() -> None:
    assert split_sentences(MARKDOWN) == [
        "Pump manual\nThe pump weighs 4.5 kg, i.e. little.",
        "Dr. Moss built it.",
        "Alarms\nL-401 is yellow.",
        "It clears by itself.",
        "- first item",
        "- second item",
        "run(a). stop run(b)",
    ]


def test_headings_in_a_row_and_at_the_end_are_kept() -> None:
    assert split_sentences("# One\n## Two\n\nText here.\n\n# Last") == ["One\nTwo\nText here.", "Last"]


def test_splitting_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("network used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert split_sentences("Das ist z.B. gut. Ja.", "de") == ["Das ist z.B. gut.", "Ja."]


def test_text_without_full_stops_is_cut_to_a_sane_length() -> None:
    table = "\n".join(f"| {number} | cell |" for number in range(300))
    for text in (table, f"```\n{table}\n```", "word " * 1000):
        pieces = split_sentences(text)
        assert max(len(piece.split()) for piece in pieces) <= LONGEST_SENTENCE
        assert " ".join(pieces).split().count("cell") == text.split().count("cell")


def test_chunk_records_have_the_documented_fields() -> None:
    document = Document("a.md", "One two. Three four. Five six. Seven eight.")
    chunks = [passage.chunk for passage in chunk_document(document, "sentences", 3, "en")]
    assert chunks == [
        {
            "text": "One two. Three four. Five six.",
            "start": 0,
            "end": 6,
            "sentence_count": 3,
            "word_count": 6,
            "chunk_id": 1,
            "doc_chunk_index": 1,
        },
        {
            "text": "Seven eight.",
            "start": 6,
            "end": 8,
            "sentence_count": 1,
            "word_count": 2,
            "chunk_id": 2,
            "doc_chunk_index": 2,
        },
    ]


def test_no_chunking_keeps_the_file_verbatim() -> None:
    [passage] = chunk_document(Document("a.md", "\n# T\n\nOne two.\n\nThree.\n"), "none", 5, "en")
    assert passage.chunk["text"] == "# T\n\nOne two.\n\nThree."
    assert passage.chunk["sentence_count"] == 2


@given(
    st.lists(st.sampled_from(["Alpha beta.", "Gamma!", "Is it so?", "\n\n", "delta epsilon.", "\n"]), min_size=1),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_no_word_is_lost_and_positions_run_on(parts: list[str], per_chunk: int, per_window: int) -> None:
    document = Document("a.txt", " ".join(parts))
    passages = chunk_document(document, "sentences", per_chunk, "en")
    chunks = [passage.chunk for passage in passages]
    assert [word for chunk in chunks for word in chunk["text"].split()] == document.text.split()
    assert [chunk["chunk_id"] for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert [chunk["start"] for chunk in chunks] == [0, *(chunk["end"] for chunk in chunks)][: len(chunks)]
    windows = windows_of(document, passages, per_window)
    assert [chunk for window in windows for chunk in window.chunks] == chunks
    assert all(len(window.chunks) <= per_window for window in windows)
    assert len(windows_of(document, passages, None)) == (1 if chunks else 0)


def test_sections_share_out_the_passages_and_the_last_takes_the_rest() -> None:
    document = Document("a.txt", "Aa one. Bb two. Cc three. Dd four. Ee five.")
    chunks = [passage.chunk for passage in chunk_document(document, "sentences", 1, "en")]
    assert sections(chunks, 2) == [
        "=== Section 1 ===\n- Segment 1: Aa one.\n- Segment 2: Bb two.",
        "=== Section 2 ===\n- Segment 3: Cc three.\n- Segment 4: Dd four.\n- Segment 5: Ee five.",
    ]
    assert len(sections(chunks, 9)) == 5


def test_titles() -> None:
    assert title_of(Document("x/a.md", MARKDOWN)) == "Pump manual"
    assert title_of(Document("x/a.md", "text\n# Head #\n")) == "Head"
    assert title_of(Document("x/lift-pump_v2.md", "text")) == "lift pump v2"


def test_windows_are_thinned_out_evenly() -> None:
    windows = list(range(10))
    assert spread(windows, 4) == [0, 2, 5, 7]
    assert spread(windows, None) == spread(windows, 10) == spread(windows, 99) == windows

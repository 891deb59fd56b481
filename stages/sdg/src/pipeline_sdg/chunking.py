"""Passages of whole sentences, and the windows of passages that one LLM call sees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import sentencex

from pipeline_sdg.documents import Document

Chunk = dict[str, Any]
"""text, start, end (word positions, end exclusive), sentence_count, word_count, chunk_id, doc_chunk_index"""

LONGEST_SENTENCE = 80
"""Words. Tables, code and lists know no full stop; longer pieces are cut so that a passage keeps a sane size."""

_BLANK_LINES = re.compile(r"\n\s*\n+")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.+?)\s*#*\s*$")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\s*\n", re.DOTALL)
_TITLE_LINE = re.compile(r"^title:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Passage:
    """A chunk record and the sentences it was made of."""

    chunk: Chunk
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Window:
    """What one call sees: consecutive passages of one document. `index` counts the document's windows from 0."""

    document: str
    title: str
    index: int
    passages: tuple[Passage, ...]

    @property
    def chunks(self) -> list[Chunk]:
        return [passage.chunk for passage in self.passages]

    @property
    def text(self) -> str:
        return " ".join(chunk["text"] for chunk in self.chunks)

    @property
    def segment_ids(self) -> list[int]:
        return [chunk["chunk_id"] for chunk in self.chunks]


def title_of(document: Document) -> str:
    """The first heading (or the front matter's title), else the file's name made readable."""
    front, body = _front_matter(document.text)
    if front:
        return front
    for line in body.splitlines():
        heading = _HEADING.match(line)
        if heading:
            return heading.group(1)
    stem = document.path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return re.sub(r"[-_]+", " ", stem)


def split_sentences(text: str, language: str = "en") -> list[str]:
    """Sentences of a plain or Markdown text, in order, white space made single.

    A heading is not a sentence of its own: it stands, on a line, before the sentence that follows it, so that the
    passage says what it is about. Fenced code and over-long pieces are cut at line or word borders.
    """
    title, body = _front_matter(text)
    pending = [title] if title else []
    sentences: list[str] = []
    for kind, block in _blocks(body):
        if kind == "heading":
            pending.append(block)
            continue
        pieces = _code_pieces(block) if kind == "code" else _prose_sentences(block, language)
        if pieces and pending:
            pieces[0] = "\n".join([*dict.fromkeys(pending), pieces[0]])
            pending = []
        sentences += pieces
    return sentences + pending


def chunk_document(
    document: Document, chunking: Literal["sentences", "none"], sentences_per_chunk: int, language: str
) -> list[Passage]:
    """The passages of one document; `none` makes the whole file one passage, verbatim."""
    sentences = split_sentences(document.text, language)
    if chunking == "none":
        return [Passage(_chunk(document.text.strip(), 0, len(sentences), 1), tuple(sentences))]
    passages: list[Passage] = []
    position = 0
    for first in range(0, len(sentences), sentences_per_chunk):
        group = sentences[first : first + sentences_per_chunk]
        chunk = _chunk(" ".join(group), position, len(group), len(passages) + 1)
        passages.append(Passage(chunk, tuple(group)))
        position = chunk["end"]
    return passages


def windows_of(document: Document, passages: list[Passage], window_chunks: int | None) -> list[Window]:
    """Consecutive windows of `window_chunks` passages; None puts the whole document into one."""
    size = window_chunks or max(len(passages), 1)
    title = title_of(document)
    return [
        Window(document.path, title, index, tuple(passages[first : first + size]))
        for index, first in enumerate(range(0, len(passages), size))
    ]


def spread(windows: list[Window], most: int | None) -> list[Window]:
    """At most `most` windows at even distances, in order; None keeps all."""
    if most is None or len(windows) <= most:
        return windows
    return [windows[number * len(windows) // most] for number in range(most)]


def sections(chunks: list[Chunk], num_sections: int) -> list[str]:
    """The passages as blocks of text for a prompt: floor(n / num_sections) each, the last takes the rest."""
    size = max(len(chunks) // num_sections, 1)
    blocks = []
    for number in range(min(num_sections, len(chunks))):
        last = number == min(num_sections, len(chunks)) - 1
        part = chunks[number * size : None if last else (number + 1) * size]
        lines = [f"- Segment {chunk['chunk_id']}: {chunk['text']}" for chunk in part if chunk["text"].strip()]
        blocks.append("\n".join([f"=== Section {number + 1} ===", *lines]))
    return blocks


def _chunk(text: str, start: int, sentence_count: int, chunk_id: int) -> Chunk:
    words = len(text.split())
    return {
        "text": text,
        "start": start,
        "end": start + words,
        "sentence_count": sentence_count,
        "word_count": words,
        "chunk_id": chunk_id,
        "doc_chunk_index": chunk_id,
    }


def _front_matter(text: str) -> tuple[str, str]:
    """(title, rest): YAML front matter is about the page, not part of it; only its title is kept."""
    found = _FRONT_MATTER.match(text)
    if not found:
        return "", text
    title = _TITLE_LINE.search(found.group(1))
    return (title.group(1) if title else ""), text[found.end() :]


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """("heading" | "prose" | "code", text) in order; prose is one paragraph."""
    prose: list[str] = []
    code: list[str] = []
    fence = ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if fence:
            code.append(line)
            if mark and mark.group(1).startswith(fence):
                yield "code", "\n".join(code)
                code, fence = [], ""
            continue
        heading = _HEADING.match(line)
        if (mark or heading) and prose:
            yield from (("prose", part) for part in _paragraphs(prose))
            prose = []
        if mark:
            code, fence = [line], mark.group(1)
        elif heading:
            yield "heading", heading.group(1)
        else:
            prose.append(line)
    if code:  # a fence that nobody closed
        yield "code", "\n".join(code)
    yield from (("prose", part) for part in _paragraphs(prose))


def _paragraphs(lines: list[str]) -> list[str]:
    return [part for part in _BLANK_LINES.split("\n".join(lines)) if part.strip()]


def _prose_sentences(paragraph: str, language: str) -> list[str]:
    found = []
    for sentence in sentencex.segment(language, paragraph.strip()):
        if len(sentence.split()) > LONGEST_SENTENCE:
            found += _pack(sentence.splitlines())
        elif sentence.strip():
            found.append(" ".join(sentence.split()))
    return found


def _code_pieces(block: str) -> list[str]:
    return _pack(line for line in block.splitlines() if not _FENCE.match(line))


def _pack(lines: Iterator[str] | list[str]) -> list[str]:
    """Join lines to pieces of at most LONGEST_SENTENCE words; a longer line is cut between words."""
    pieces: list[list[str]] = [[]]
    for line in lines:
        words = line.split()
        while words:
            room = LONGEST_SENTENCE - len(pieces[-1])
            if len(words) > room and pieces[-1]:
                pieces.append([])
                continue
            pieces[-1] += words[:room]
            words = words[room:]
    return [" ".join(piece) for piece in pieces if piece]

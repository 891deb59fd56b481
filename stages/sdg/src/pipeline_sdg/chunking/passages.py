"""Passages of whole sentences or of a number of tokens, which respect lists, tables, code and headings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.schemas.sdg import SdgConfig
from pipeline_sdg.chunking.blocks import blocks, front_matter
from pipeline_sdg.chunking.pieces import Atom, Piece, atoms, joined, packed
from pipeline_sdg.chunking.tokens import TokenCounter, token_counter
from pipeline_sdg.documents import Document

Chunk = dict[str, Any]
"""text, title, start, end (word positions in the document, end exclusive), sentence_count, word_count, chunk_id,
doc_chunk_index; `chunking=none` adds id"""

_ARROW = " > "
_NEW_AT_HEADING = 4
"""A heading begins a new passage (`tokens`) when the one before is at least 1/4 full."""


@dataclass(frozen=True)
class Passage:
    """A chunk record and the sentences it was made of."""

    chunk: Chunk
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class _Placed:
    """An atom with its size and the position of its first word in the document."""

    atom: Atom
    size: int
    start: int

    @property
    def end(self) -> int:
        return self.start + sum(len(piece.text.split()) for piece in self.atom.pieces)


def title_of(document: Document) -> str:
    """The title the file gives (or its first heading), else the file's name made readable; a row may have none."""
    if document.title:
        return document.title
    front, body = front_matter(document.text)
    heading = front or next((block.text for block in blocks(body) if block.kind == "heading"), "")
    if heading:
        return heading
    if document.own_id:  # a row's file says nothing about the row
        return ""
    stem = document.path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return re.sub(r"[-_]+", " ", stem)


def chunk_document(document: Document, config: SdgConfig) -> list[Passage]:
    """The passages of one document, in order; see the key `chunking`.

    Each has the path of headings over its text as its title ("Guide > Install"; of what it shares, if it runs over
    several headings), else the document's title.
    """
    found = atoms(document.text, config.language, document.title)
    if config.chunking == "none":
        return [_whole(document, found)]
    title = title_of(document)
    if config.chunking == "tokens":
        counter = token_counter(config.chunk_tokenizer)
        placed = _placed(_cut_to_tokens(found, counter, config.chunk_tokens), lambda piece: counter.count(piece.text))
        groups = _token_groups(placed, config.chunk_tokens, config.chunk_overlap)
    else:
        placed = _placed(_cut_to_sentences(found, config.sentences_per_chunk), lambda _: 1)
        groups = _groups(placed, config.sentences_per_chunk)
    return [_passage(group, number, title) for number, group in enumerate(groups, 1)]


def _whole(document: Document, found: list[Atom]) -> Passage:
    """The document as one passage, verbatim, with its own id and title."""
    sentences = tuple(piece.text for atom in found for piece in atom.pieces)
    text = document.text.strip()
    chunk = _chunk(text, title_of(document), 0, len(text.split()), len(sentences), 1)
    return Passage({**chunk, "id": document.id}, sentences)


def _cut_to_sentences(found: list[Atom], most: int) -> Iterator[Atom]:
    """Atoms of at most `most` pieces."""
    for atom in found:
        for first in range(0, len(atom.pieces), most):
            yield Atom(atom.pieces[first : first + most], atom.path, atom.opens and not first)


def _cut_to_tokens(found: list[Atom], counter: TokenCounter, most: int) -> Iterator[Atom]:
    """Atoms of at most `most` tokens: cut between pieces, then between lines, then between words."""

    def fits(text: str) -> bool:
        return counter.count(text) <= most

    for atom in found:
        if fits(joined(atom.pieces)):
            yield atom
            continue
        opens = atom.opens
        for piece in atom.pieces:
            lines = packed(piece.text.split("\n"), fits, lambda line: counter.cut(line, most))
            for number, text in enumerate(lines):
                yield Atom((Piece(text, piece.break_before or number > 0),), atom.path, opens)
                opens = False


def _placed(found: Iterable[Atom], size: Callable[[Piece], int]) -> Iterator[_Placed]:
    start = 0
    for atom in found:
        placed = _Placed(atom, sum(size(piece) for piece in atom.pieces), start)
        yield placed
        start = placed.end


def _groups(placed: Iterable[_Placed], most: int) -> Iterator[list[_Placed]]:
    """Atoms in a row, together at most `most` in size."""
    group: list[_Placed] = []
    for item in placed:
        if group and sum(other.size for other in group) + item.size > most:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _token_groups(placed: Iterable[_Placed], most: int, overlap: int) -> Iterator[list[_Placed]]:
    """As `_groups`, but a heading begins a new group, and else a group begins with the last atoms of the one before.

    Only whole atoms are repeated, at most `overlap` tokens of them, and never over a heading.
    """
    group: list[_Placed] = []
    fresh = False  # does the group hold more than what it shares with the one before?
    for item in placed:
        size = sum(other.size for other in group)
        section = item.atom.opens and size * _NEW_AT_HEADING >= most
        if fresh and (section or size + item.size > most):
            yield group
            group = [] if item.atom.opens else _tail(group, min(overlap, most - item.size))
        elif size + item.size > most:  # what is shared and this do not fit together
            group = []
        group.append(item)
        fresh = True
    if group:
        yield group


def _tail(group: list[_Placed], room: int) -> list[_Placed]:
    tail: list[_Placed] = []
    for item in reversed(group[1:]):  # never all of it
        room -= item.size
        if room < 0:
            break
        tail.insert(0, item)
    return tail


def _passage(group: list[_Placed], number: int, title: str) -> Passage:
    pieces = [piece for item in group for piece in item.atom.pieces]
    path = _ARROW.join(_shared([item.atom.path for item in group])) or title
    chunk = _chunk(joined(pieces), path, group[0].start, group[-1].end, len(pieces), number)
    return Passage(chunk, tuple(piece.text for piece in pieces))


def _shared(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The beginning that all paths have in common."""
    shared = paths[0]
    for path in paths[1:]:
        same = [left == right for left, right in zip(shared, path, strict=False)]
        shared = shared[: same.index(False) if False in same else len(same)]
    return shared


def _chunk(text: str, title: str, start: int, end: int, sentence_count: int, chunk_id: int) -> Chunk:
    return {
        "text": text,
        "title": title,
        "start": start,
        "end": end,
        "sentence_count": sentence_count,
        "word_count": end - start,
        "chunk_id": chunk_id,
        "doc_chunk_index": chunk_id,
    }

"""Pieces: sentences, lines of code, rows; and atoms, the pieces that no passage may tear apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import sentencex

from pipeline_sdg.chunking.blocks import Block, blocks, front_matter

LONGEST_SENTENCE = 80
"""Words. Tables, code and lists know no full stop; longer pieces are cut so that a passage keeps a sane size."""

UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LETTERS_OF_A_WORD = 2
_LETTERS_AT_MOST = 40
"""A run of more letters than a word has is no word but a blob (base64, a long address): it counts as several."""


@dataclass(frozen=True)
class Piece:
    """A sentence, or lines that stand for one. `break_before` keeps its line break when pieces are joined."""

    text: str
    break_before: bool = False


@dataclass(frozen=True)
class Atom:
    """Pieces that stay in one passage if they fit. `path` are the headings above; `opens` says one came just before."""

    pieces: tuple[Piece, ...]
    path: tuple[str, ...] = ()
    opens: bool = False


def length(text: str) -> int:
    """Words of a text; in scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) two letters are one."""
    return sum(_weight(word) for word in text.split())


def atoms(text: str, language: str, title: str = "") -> list[Atom]:
    """The atoms of a text in order.

    A heading is no sentence of its own: it stands, on a line, before the piece that follows it, so that the passage
    says what it is about. A list item and a code block are one atom each; so is every group of table rows of at most
    LONGEST_SENTENCE words.

    Args:
        title: stands at the root of every path that no heading of level 1 begins; front matter goes before it.
    """
    front, body = front_matter(text)
    found: list[Atom] = []
    pending = [front] if front else []
    headings: dict[int, str] = {}
    for kind, group in _grouped(blocks(body)):
        if kind == "heading":
            [block] = group
            headings = {level: name for level, name in headings.items() if level < block.level}
            headings[block.level] = block.text
            if not (pending == [front] and block.text == front):  # the page's title is often its first heading too
                pending.append(block.text)
            continue
        path = _path(headings, front or title)
        for pieces in _atom_pieces(kind, group, language):
            opened = bool(pending)
            if pending:
                pieces[0] = Piece("\n".join([*pending, pieces[0].text]), pieces[0].break_before)
                pending = []
            found.append(Atom(tuple(pieces), path, opened))
    path = _path(headings, front or title)
    return found + [Atom((Piece(text),), path, True) for text in pending]


def joined(pieces: Iterable[Piece]) -> str:
    """Text of pieces in a row."""
    text = ""
    for piece in pieces:
        text += (("\n" if piece.break_before else " ") if text else "") + piece.text
    return text


def packed(lines: Iterable[str], fits: Callable[[str], bool], cut: Callable[[str], Iterable[str]]) -> list[str]:
    """Lines joined to pieces that fit; a line that alone does not is `cut`."""
    found: list[str] = []
    for line in lines:
        for part in [line] if fits(line) else cut(line):
            if found and fits(f"{found[-1]}\n{part}"):
                found[-1] += f"\n{part}"
            elif part.strip():
                found.append(part)
    return found


def words_cut(line: str) -> Iterator[str]:
    """A line in parts of at most LONGEST_SENTENCE words, cut between words; a blob is cut inside."""
    part: list[str] = []
    room = LONGEST_SENTENCE
    for word in (short for long in line.split() for short in _short_words(long)):
        weight = _weight(word)
        if part and weight > room:
            yield " ".join(part)
            part, room = [], LONGEST_SENTENCE
        part.append(word)
        room -= weight
    if part:
        yield " ".join(part)


def _short_words(word: str) -> Iterator[str]:
    if _weight(word) <= LONGEST_SENTENCE:
        yield word
        return
    size = LONGEST_SENTENCE * (_LETTERS_OF_A_WORD if UNSPACED.search(word) else _LETTERS_AT_MOST)
    yield from (word[first : first + size] for first in range(0, len(word), size))


def _weight(word: str) -> int:
    unspaced = 0 if word.isascii() else len(UNSPACED.findall(word))
    return max(1, unspaced // _LETTERS_OF_A_WORD, len(word) // _LETTERS_AT_MOST)


def _path(headings: dict[int, str], root: str) -> tuple[str, ...]:
    names = [headings[level] for level in sorted(headings)]
    return tuple(names if not root or 1 in headings else [root, *names])


def _grouped(found: Iterator[Block]) -> Iterator[tuple[str, list[Block]]]:
    """Blocks one by one, but the rows of a table together."""
    rows: list[Block] = []
    for block in found:
        if block.kind == "row":
            rows.append(block)
            continue
        if rows:
            yield "row", rows
            rows = []
        yield block.kind, [block]
    if rows:
        yield "row", rows


def _atom_pieces(kind: str, group: list[Block], language: str) -> Iterator[list[Piece]]:
    if kind == "row":
        rows = packed((block.text for block in group), _sane, words_cut)
        yield from ([Piece(text, break_before=True)] for text in rows)
        return
    [block] = group
    if kind == "code":
        pieces = packed((line.rstrip() for line in block.text.splitlines()), _sane, words_cut)
        if pieces:
            yield [Piece(text, break_before=True) for text in pieces]
        return
    sentences = [Piece(text) for text in _sentences(block.text, language)]
    if kind == "item" and sentences:
        yield [Piece(sentences[0].text, break_before=True), *sentences[1:]]
    elif kind == "prose":
        yield from ([sentence] for sentence in sentences)


def _sane(text: str) -> bool:
    return length(text) <= LONGEST_SENTENCE


def _sentences(paragraph: str, language: str) -> list[str]:
    """Sentences with single spaces; over-long ones are cut at line borders, else between words."""
    found: list[str] = []
    for sentence in sentencex.segment(language, paragraph):
        if _sane(sentence):
            found.append(" ".join(sentence.split()))
        else:
            lines = packed((" ".join(line.split()) for line in sentence.splitlines()), _sane, words_cut)
            found += [" ".join(piece.split()) for piece in lines]
    return [sentence for sentence in found if sentence]

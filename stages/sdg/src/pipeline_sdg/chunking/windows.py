"""What one LLM call sees: passages in a row, within a budget; and which passages got a question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pipeline_sdg.chunking.passages import Chunk, Passage
from pipeline_sdg.chunking.tokens import estimated_tokens

Strategy = Literal["sequential", "doc_balanced", "interleaved"]
"""See the key `bundle_strategy`."""


@dataclass(frozen=True)
class Window:
    """Passages of one document (in a row) or bundle. `index` counts its windows from 0; `last` is its last one."""

    document: str
    title: str
    index: int
    passages: tuple[Passage, ...]
    last: bool = False

    @property
    def chunks(self) -> list[Chunk]:
        return [passage.chunk for passage in self.passages]

    @property
    def text(self) -> str:
        return " ".join(chunk["text"] for chunk in self.chunks)

    @property
    def segment_ids(self) -> list[int]:
        return [chunk["chunk_id"] for chunk in self.chunks]

    @property
    def members(self) -> tuple[str, ...]:
        """The documents of a bundle that have a passage here, in order; () for a single document."""
        return tuple(dict.fromkeys(chunk["doc_id"] for chunk in self.chunks if "doc_id" in chunk))

    @property
    def tokens(self) -> int:
        """About how many (see `estimated_tokens`)."""
        return sum(_tokens(passage) for passage in self.passages)


@dataclass(frozen=True)
class Coverage:
    """Of `chunks` passages, those that no question cites."""

    chunks: int
    without_question: list[int]

    @property
    def covered(self) -> int:
        return self.chunks - len(self.without_question)


def windows_of(
    document: str,
    title: str,
    passages: Sequence[Passage],
    window_chunks: int | None = None,
    window_tokens: int | None = None,
) -> list[Window]:
    """Windows of at most `window_chunks` passages and about `window_tokens` tokens; None is no limit.

    Every passage is in exactly one; a passage longer than the budget is a window of its own.
    """
    groups: list[list[Passage]] = []
    room = 0
    for passage in passages:
        size = _tokens(passage) if window_tokens else 0
        full = groups and window_chunks is not None and len(groups[-1]) == window_chunks
        if not groups or full or size > room:
            groups.append([])
            room = window_tokens or 0
        groups[-1].append(passage)
        room -= size
    return [
        Window(document, title, index, tuple(group), last=index == len(groups) - 1)
        for index, group in enumerate(groups)
    ]


def spread(windows: list[Window], most: int | None) -> list[Window]:
    """At most `most` windows at even distances, in order; None keeps all."""
    if most is None or len(windows) <= most:
        return windows
    return [windows[number * len(windows) // most] for number in range(most)]


def pairs_of(window: Window, num_pairs: int, window_tokens: int | None) -> int:
    """How many pairs to ask for: `num_pairs` of a full window, of a document's last one its share, at least 1.

    So a document's questions are in proportion to its length. Without a budget of tokens every window gets `num_pairs`.
    """
    if window_tokens is None or not window.last:
        return num_pairs
    return max(1, min(num_pairs, round(num_pairs * window.tokens / window_tokens)))


def coverage(windows: Iterable[Window], cited: Iterable[Iterable[int]]) -> Coverage:
    """Which passages of one document's windows are cited.

    Args:
        cited: the `segment_ids` of each of its pairs.
    """
    ids = [number for window in windows for number in window.segment_ids]
    got = {number for numbers in cited for number in numbers}
    return Coverage(len(ids), [number for number in ids if number not in got])


def sections(
    chunks: list[Chunk], num_sections: int, strategy: Strategy = "sequential", page: str | None = None
) -> list[str]:
    """The passages as blocks of text for a prompt: floor(n / num_sections) each, the last takes the rest.

    A line names the document of a bundle's passage.

    Args:
        strategy: for bundles. `interleaved`: the passages of the documents in turn, then shared out as above;
            `doc_balanced`: a section takes ceil(n / num_sections) of each document's n passages.
        page: the title that the prompt has already; a line says where the passages under it stand if that is another
            title. None: no titles.
    """
    blocks = []
    for number, part in enumerate(_parts(chunks, min(num_sections, len(chunks)), strategy), 1):
        blocks.append("\n".join([f"=== Section {number} ===", *lines(part, page)]))
    return blocks


def lines(chunks: Sequence[Chunk], page: str | None = None) -> Iterator[str]:
    """A line for each passage, and (see `sections`) one before each change of title."""
    shown = page
    for chunk in (chunk for chunk in chunks if chunk["text"].strip()):
        title = chunk.get("title") or page
        if page is not None and title != shown:
            yield f"({title})"
            shown = title
        yield _line(chunk)


def in_order(chunks: Sequence[Chunk], strategy: Strategy) -> list[int]:
    """The order of a bundle's passages, as places in `chunks`.

    `interleaved`: the first of every document, the second of every document, and so on. `doc_balanced`: by how far into
    its document a passage stands, so that any stretch has a share of every document in proportion to its length.
    """
    documents = _by_document(chunks)
    if strategy == "sequential":
        return [place for places in documents for place in places]
    keys = [
        (number if strategy == "interleaved" else (2 * number + 1) / (2 * len(places)), document, place)
        for document, places in enumerate(documents)
        for number, place in enumerate(places)
    ]
    return [place for _, _, place in sorted(keys)]


def _by_document(chunks: Sequence[Chunk]) -> list[list[int]]:
    """The places of each document's passages."""
    places = defaultdict(list)
    for place, chunk in enumerate(chunks):
        places[chunk.get("doc_id")].append(place)
    return list(places.values())


def _parts(chunks: list[Chunk], count: int, strategy: Strategy) -> list[list[Chunk]]:
    documents = _by_document(chunks)
    if strategy == "doc_balanced" and len(documents) > 1:
        parts = [[chunks[place] for places in documents for place in _share(places, at, count)] for at in range(count)]
        return [part for part in parts if part]
    ordered = [chunks[place] for place in in_order(chunks, strategy)]
    borders = [number * (len(chunks) // count) for number in range(count)] + [len(chunks)]
    return [ordered[first:end] for first, end in pairwise(borders)]


def _share(places: list[int], at: int, count: int) -> list[int]:
    size = -(-len(places) // count)
    return places[at * size : (at + 1) * size]


def _line(chunk: Chunk) -> str:
    document = f" [{chunk['doc_id']}]" if "doc_id" in chunk else ""
    return f"- Segment {chunk['chunk_id']}{document}: {chunk['text']}"


def _tokens(passage: Passage) -> int:
    return estimated_tokens(passage.chunk["text"])

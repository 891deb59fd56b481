"""Candidates for further right answers: the best passages of the corpus by several systems, for every question.

A pair cites the passages it was written from; others that answer it as well would be taken for wrong ones. Pooling as
at TREC (Voorhees and Harman 2005, "TREC: Experiment and Evaluation in Information Retrieval", chapter 2): the first k
of every system are looked at. The systems are BM25 asked with the question, BM25 asked with the written answer (other
words find other passages: Bailey et al. 2016, https://doi.org/10.1145/2911451.2914671), and vectors of an embedding
endpoint or a local encoder. So no single model, and never the one to be trained alone, decides what is looked at.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from pipeline.contract import EncodingContract
from pipeline.records.passages import Passage, passage_id
from pipeline.retrieval.bm25 import Bm25Index
from pipeline_sdg.pairs import Pair
from pipeline_sdg.similarity import TILE, unit
from pipeline_sdg.vectors import Embed, embedded, unnamed_file


class Pool:
    """The corpus's distinct passages and the systems that search among them.

    Texts and vectors lie in files without a name in `folder`, which vanish with the process; in memory are the BM25
    index and what finds a passage again.
    """

    def __init__(self, bm25: Bm25Index, passages: _Passages, vectors: np.ndarray | None, embed: Embed | None) -> None:
        self._bm25, self._passages, self._vectors, self._embed = bm25, passages, vectors, embed

    @classmethod
    async def build(cls, passages: Iterable[tuple[str, str]], folder: Path, embed: Embed | None) -> Pool:
        """Read (title, text) of every passage of the corpus once; equal texts count once.

        Raises:
            PipelineError: the vectors cannot be made.
        """
        kept = _Passages(folder)
        bm25 = await asyncio.to_thread(Bm25Index, kept.adding(passages))
        plain = EncodingContract()  # title and text joined as everywhere else
        read = (plain.format_passage(item.text, item.title) for item in kept)
        vectors = await embedded(read, "passage", embed, folder) if embed and len(kept) else None
        return cls(bm25, kept, vectors, embed)

    def __len__(self) -> int:
        return len(self._passages)

    async def candidates(self, pairs: Sequence[Pair], own: Sequence[Iterable[str]], k: int) -> list[list[Passage]]:
        """For each pair the first `k` passages of every system, less its `own` (texts); each once, best ranks first."""
        known = [{passage_id(text) for text in texts} for texts in own]
        runs = [self._by_words(pair, k + len(ids)) for pair, ids in zip(pairs, known, strict=True)]
        if self._vectors is not None and self._embed and pairs:
            queries = await self._embed([pair["question"] for pair in pairs], "query")
            depth = k + max(map(len, known))
            for run, places in zip(runs, nearest(queries, self._vectors, depth), strict=True):
                run.append(places)
        return [self._merged(run, ids, k) for run, ids in zip(runs, known, strict=True)]

    def _by_words(self, pair: Pair, k: int) -> list[np.ndarray]:
        return [self._bm25.top(pair[name], k)[0] for name in ("question", "answer")]

    def _merged(self, runs: list[np.ndarray], own: set[str], k: int) -> list[Passage]:
        found = {int(place): self._passages[int(place)] for place in chain(*runs)}
        shortened = [[place for place in run.tolist() if found[place].id not in own][:k] for run in runs]
        by_rank = (place for rank in zip_longest(*shortened) for place in rank if place is not None)
        return [found[place] for place in dict.fromkeys(by_rank)]


def nearest(queries: np.ndarray, passages: np.ndarray, k: int) -> np.ndarray:
    """Places of the `k` passages with the largest cosine, best first: int64 [Q, min(k, N)]. Read tile by tile.

    Equal cosines come in the order of the passages.
    """
    queries = unit(queries)
    scores = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    for first in range(0, len(passages), TILE):
        tile = queries @ unit(passages[first : first + TILE]).T
        numbers = np.broadcast_to(np.arange(first, first + tile.shape[1]), tile.shape)
        scores, places = np.hstack([scores, tile]), np.hstack([places, numbers])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, places = np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)
    return places


class _Passages:
    """Distinct passages in a file: text and title by place."""

    def __init__(self, folder: Path) -> None:
        self._stream = unnamed_file(folder)
        self._ends = array("q", [0])

    def adding(self, passages: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Keep every passage (title, text) that is new, and give out what BM25 reads of it."""
        plain = EncodingContract()
        seen: set[str] = set()
        for title, text in passages:
            name = passage_id(text)
            if name in seen or not text.strip():
                continue
            seen.add(name)
            for part in (title, text):
                self._stream.write(part.encode("utf-8"))
                self._ends.append(self._stream.tell())
            yield plain.format_passage(text, title)

    def __len__(self) -> int:
        return len(self._ends) // 2

    def __iter__(self) -> Iterator[Passage]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> Passage:
        start, middle, end = self._ends[2 * place : 2 * place + 3]
        self._stream.seek(start)
        data = self._stream.read(end - start)
        text = data[middle - start :].decode("utf-8")
        return Passage(passage_id(text), text, data[: middle - start].decode("utf-8"))

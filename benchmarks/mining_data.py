"""What the mining benchmarks search in: the train qrels of a BEIR folder, or random vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.records.beir import read_beir
from pipeline.run.files import write_json

_WIDTH = 384
_QUERY_WORDS = 12
_NOISE = 0.3
"""Length of the noise on a question's vector that is used again."""
_NEAR = 0.25
"""Mean similarity of a random question to its passage: a little above that of the best of 100,000 others."""


@dataclass(frozen=True)
class Questions:
    """Questions over distinct passages; `positives` are passage numbers."""

    passages: list[str]
    queries: list[str]
    positives: list[list[int]]


def questions_of(folder: Path, texts: list[str]) -> Questions:
    """The train questions of a BEIR folder; without qrels the first words of each of `texts` ask for that text."""
    if not (folder / "qrels" / "train.tsv").is_file():
        first = {" ".join(text.split()[:_QUERY_WORDS]): number for number, text in enumerate(texts)}
        return Questions(texts, list(first), [[number] for number in first.values()])
    data = read_beir(folder, "train")
    plain = {key: f"{item.title or ''} {item.text}".strip() for key, item in data.corpus.items()}
    passages = list(dict.fromkeys(plain.values()))
    place = {text: number for number, text in enumerate(passages)}
    positives: dict[str, set[int]] = {}
    for key, query in data.queries.items():
        positives.setdefault(query, set()).update(place[plain[name]] for name in data.qrels[key])
    return Questions(passages, list(positives), [sorted(row) for row in positives.values()])


def write_repeated(
    folder: Path, found: Questions, passages: np.ndarray, queries: np.ndarray, count: int, seed: int
) -> Path:
    """These questions with their vectors, used again with noise on the vectors until there are `count`."""
    random = np.random.default_rng(seed)
    rows = np.arange(max(count, len(queries))) % len(queries)
    noise = random.standard_normal((len(rows), queries.shape[1]), np.float32)
    noise *= _NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    noise[: len(queries)] = 0
    names = [f"{found.queries[row]} #{number}" for number, row in enumerate(rows)]
    many = Questions(found.passages, names, [found.positives[row] for row in rows])
    return _write(folder, many, passages, queries[rows] + noise)


def write_random(folder: Path, passages: int, queries: int, seed: int) -> Path:
    """Random unit vectors; the texts are p0, p1, …, and each question has one positive."""
    random = np.random.default_rng(seed)
    vectors = _unit(random.standard_normal((passages, _WIDTH), np.float32))
    positives = random.integers(0, passages, queries)
    away = _unit(random.standard_normal((queries, _WIDTH), np.float32))
    near = _NEAR * vectors[positives] + (1 - _NEAR**2) ** 0.5 * away
    names = [f"p{number}" for number in range(passages)]
    found = Questions(names, [f"q{number}" for number in range(queries)], positives[:, None].tolist())
    return _write(folder, found, vectors, near)


def _write(folder: Path, found: Questions, passages: np.ndarray, queries: np.ndarray) -> Path:
    """texts.json, passages.npy (fp16, as our store keeps them) and queries.npy (fp32), of unit length."""
    folder.mkdir(parents=True)
    write_json(
        folder / "texts.json", {"passages": found.passages, "queries": found.queries, "positives": found.positives}
    )
    np.save(folder / "passages.npy", passages.astype(np.float16))
    np.save(folder / "queries.npy", _unit(queries.astype(np.float32)))
    return folder


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

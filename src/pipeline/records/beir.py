"""BEIR folders (`corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`) and human-style question sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records.passages import Passage
from pipeline.records.sources.beir import documents_of, identified, judgements, metadata_of
from pipeline.records.sources.check import as_json
from pipeline.run.files import atomic_open, read_jsonl, write_jsonl

Qrels = dict[str, dict[str, int]]


@dataclass
class TestSet:
    """Questions, passages and which passage answers which question."""

    __test__ = False  # not a pytest class

    name: str
    corpus: dict[str, Passage]
    queries: dict[str, str]
    qrels: Qrels
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Question id -> what is known of it (type, hops, document, …)."""


def write_beir(folder: Path, test_set: TestSet, split: str = "test") -> Path:
    """Write a BEIR folder. Passages carry their source files in `metadata.documents`."""
    write_jsonl(
        folder / "corpus.jsonl",
        (
            {"_id": item.id, "title": item.title, "text": item.text, "metadata": {"documents": list(item.documents)}}
            for item in test_set.corpus.values()
        ),
    )
    write_jsonl(
        folder / "queries.jsonl",
        (
            {"_id": key, "text": text, "metadata": test_set.metadata.get(key, {})}
            for key, text in test_set.queries.items()
        ),
    )
    with atomic_open(folder / "qrels" / f"{split}.tsv") as stream:
        stream.write("query-id\tcorpus-id\tscore\n")
        for query, passages in test_set.qrels.items():
            stream.writelines(f"{query}\t{passage}\t{score}\n" for passage, score in passages.items())
    return folder


def read_beir(folder: Path, split: str = "test", name: str | None = None) -> TestSet:
    """Read a BEIR folder and check that its parts refer to each other.

    Raises:
        PipelineError: a file is missing or malformed, or a judgement names an unknown passage or question.
    """
    folder = folder.expanduser()
    corpus_file, query_file, qrels_file = (
        folder / "corpus.jsonl",
        folder / "queries.jsonl",
        folder / "qrels" / f"{split}.tsv",
    )
    for path in (corpus_file, query_file, qrels_file):
        if not path.is_file():
            raise PipelineError(f"{path} does not exist", fix="a BEIR folder needs corpus.jsonl, queries.jsonl, qrels/")
    corpus = {
        key: Passage(key, row["text"], row["title"], documents_of(row, where))
        for where, key, row in identified(corpus_file, "passage")
    }
    queries, metadata = {}, {}
    for where, key, row in identified(query_file, "question"):
        queries[key], metadata[key] = row["text"], as_json(metadata_of(row, where), f"{where}: metadata")
    qrels: Qrels = {}
    for question, (_, judged) in judgements(qrels_file, queries, corpus).items():
        if relevant := {passage: score for passage, score in judged.items() if score > 0}:
            qrels[question] = relevant
    asked = {key: text for key, text in queries.items() if key in qrels}
    return TestSet(name or folder.name, corpus, asked, qrels, {key: metadata[key] for key in asked})


def question_test_set(path: Path, corpus: dict[str, Passage], name: str) -> TestSet:
    """Questions with `doc` and `quote` -> a test set over whatever passages the corpus was cut into.

    A passage is relevant if it comes from the question's document and contains its quote; where a passage border cuts
    the quote in two, the passage that holds the longest part of it.

    Raises:
        PipelineError: a question's document has no passage, or no passage holds any of its quote.
    """
    by_document: dict[str, list[Passage]] = {}
    for passage in corpus.values():
        for document in passage.documents:
            by_document.setdefault(document, []).append(passage)
    queries, qrels, metadata = {}, {}, {}
    for line, row in read_jsonl(path):
        _need(path, line, row, "_id", "text", "doc", "quote")
        candidates = by_document.get(row["doc"])
        if not candidates:
            raise PipelineError(f"{path}:{line}: no passage comes from document {row['doc']!r}")
        relevant = _holding(row["quote"], candidates)
        if not relevant:
            raise PipelineError(f"{path}:{line}: no passage of {row['doc']} contains the quote {row['quote']!r}")
        queries[row["_id"]] = row["text"]
        qrels[row["_id"]] = {passage.id: 1 for passage in relevant}
        metadata[row["_id"]] = {"document": row["doc"]}
    return TestSet(name, corpus, queries, qrels, metadata)


def _holding(quote: str, candidates: list[Passage]) -> list[Passage]:
    wanted = " ".join(quote.split())
    texts = [(passage, " ".join(passage.text.split())) for passage in candidates]
    whole = [passage for passage, text in texts if wanted in text]
    if whole:
        return whole
    best = max(texts, key=lambda item: _overlap(wanted, item[1]))
    return [best[0]] if _overlap(wanted, best[1]) >= len(wanted) // 2 else []


def _overlap(quote: str, text: str) -> int:
    """Length of the longest beginning or end of `quote` that stands at the end or beginning of `text`."""
    for length in range(len(quote), 0, -1):
        if text.endswith(quote[:length]) or text.startswith(quote[-length:]):
            return length
    return 0


def _need(path: Path, line: int, row: Any, *names: str) -> None:
    missing = [name for name in names if not isinstance(row, dict) or name not in row]
    if missing:
        raise PipelineError(f"{path}:{line}: lacks {', '.join(missing)}")

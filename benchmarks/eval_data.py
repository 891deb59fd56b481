"""What the evaluation benchmarks measure on: a test set, candidates for rerankers, and a reranker for both sides."""

from __future__ import annotations

from pathlib import Path

import torch
from pipeline_eval.bm25 import Bm25Search
from pipeline_eval.metrics import Run
from rows import read_texts
from systems import MODEL
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.assets import resolve_model
from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, read_beir
from pipeline.records.passages import Passage

_QUERY_WORDS = 12
_SPREAD = 2.0
"""Of the head's weights: the logits differ by whole numbers, or agreement to 0.001 would say nothing."""


def read_test_set(folder: Path, limit: int | None) -> TestSet:
    """The test qrels of a BEIR folder; without qrels the first words of each passage ask for that passage."""
    if (folder / "qrels" / "test.tsv").is_file():
        whole = read_beir(folder)
    else:
        texts = [text for text in read_texts(folder) if len(text.split()) > _QUERY_WORDS]
        whole = TestSet(
            folder.name,
            {f"d{number}": Passage(f"d{number}", text) for number, text in enumerate(texts)},
            {f"q{number}": " ".join(text.split()[:_QUERY_WORDS]) for number, text in enumerate(texts)},
            {f"q{number}": {f"d{number}": 1} for number in range(len(texts))},
        )
    corpus = dict(list(whole.corpus.items())[:limit])
    qrels = {key: {name: grade for name, grade in row.items() if name in corpus} for key, row in whole.qrels.items()}
    qrels = {key: row for key, row in qrels.items() if row}
    if not qrels:
        raise PipelineError(f"{folder}: no question is about the first {len(corpus)} passages", fix="raise --limit")
    return TestSet(whole.name, corpus, {key: whole.queries[key] for key in qrels}, qrels)


def candidates_of(test_set: TestSet, queries: int, depth: int) -> Run:
    """The first `depth` passages of BM25 for each of the first `queries` questions."""
    asked = dict(list(test_set.queries.items())[:queries])
    return Bm25Search(test_set.corpus).search(asked, depth)


def write_reranker(folder: Path, seed: int) -> Path:
    """The embedded MiniLM with a head drawn at random, as `BertForSequenceClassification` with one label."""
    place = resolve_model(MODEL)
    model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.classifier.weight.normal_(std=_SPREAD, generator=generator)
        model.classifier.bias.zero_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place).save_pretrained(folder)
    return folder

"""Search or reranking by beir or sentence-transformers, a process of its own: `python eval_peer_process.py SPEC.json`.

Imports nothing of the project, so that it runs in an environment of the peer's own. Everything that the specification
does not name is left at the library's default.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode_work import EncodeWork
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator


def by_id(path: Path) -> dict[str, dict[str, Any]]:
    return {row["_id"]: row for row in map(json.loads, path.open(encoding="utf-8"))}


def read(folder: Path) -> tuple[dict[str, dict[str, str]], dict[str, str], dict[str, dict[str, int]]]:
    """Corpus, queries and qrels of a BEIR folder."""
    corpus = {key: {"title": row["title"], "text": row["text"]} for key, row in by_id(folder / "corpus.jsonl").items()}
    queries = {key: row["text"] for key, row in by_id(folder / "queries.jsonl").items()}
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return corpus, queries, qrels


def joined(passage: dict[str, str]) -> str:
    return f"{passage['title']} {passage['text']}".strip()


def options(spec: dict) -> dict[str, Any]:
    return {"device": "cpu", **({"model_kwargs": {"dtype": "bfloat16"}} if spec["bf16"] else {})}


def beir(spec: dict) -> dict[str, Any]:
    """`DenseRetrievalExactSearch` by dot product (the vectors have length one), and `EvaluateRetrieval`."""
    from beir.retrieval.evaluation import EvaluateRetrieval  # only this work needs it
    from beir.retrieval.models import SentenceBERT
    from beir.retrieval.search.dense.exact_search import DenseRetrievalExactSearch

    corpus, queries, qrels = read(Path(spec["data"]))
    model = SentenceBERT(spec["model"], max_length=spec["max_length"], **options(spec))
    work = EncodeWork(model.q_model[0].model, model.q_model[0])
    begun = time.perf_counter()
    retriever = EvaluateRetrieval(DenseRetrievalExactSearch(model), spec["k_values"], score_function="dot")
    groups = retriever.evaluate(qrels, retriever.retrieve(corpus, queries), spec["k_values"])
    seconds = time.perf_counter() - begun
    metrics = {name: value for group in groups for name, value in group.items()}
    return {"seconds": seconds, **work.numbers(), "metrics": metrics}


def evaluator(spec: dict) -> dict[str, Any]:
    """`InformationRetrievalEvaluator` with the same cut-offs; MAP at the last one, where its definition is ours too."""
    corpus, queries, qrels = read(Path(spec["data"]))
    texts = {key: joined(passage) for key, passage in corpus.items()}
    model = SentenceTransformer(spec["model"], **options(spec))
    model.max_seq_length = spec["max_length"]
    work = EncodeWork(model[0].model, model[0])
    cuts = spec["k_values"]
    begun = time.perf_counter()
    evaluate = InformationRetrievalEvaluator(
        queries, texts, {key: set(row) for key, row in qrels.items()}, mrr_at_k=cuts, ndcg_at_k=cuts,
        accuracy_at_k=cuts, precision_recall_at_k=cuts, map_at_k=[max(cuts)], write_csv=False,
    )  # fmt: skip
    found = evaluate(model)
    seconds = time.perf_counter() - begun
    names = {"ndcg": "NDCG", "precision": "P", "recall": "Recall", "mrr": "MRR", "map": "MAP"}
    metrics = {}
    for key, value in found.items():
        metric, cut = key.removeprefix("cosine_").split("@")
        if metric in names:
            metrics[f"{names[metric]}@{cut}"] = float(value)
    return {"seconds": seconds, **work.numbers(), "metrics": metrics}


def reranker(spec: dict) -> tuple[CrossEncoder, EncodeWork, list[tuple[str, list[str]]]]:
    """The model, and each question with its passages."""
    corpus, queries, _ = read(Path(spec["data"]))
    candidates = json.loads(Path(spec["candidates"]).read_text(encoding="utf-8"))
    given = [(queries[query], [joined(corpus[item]) for item in row]) for query, row in candidates.items()]
    model = CrossEncoder(
        spec["model"], max_length=spec["max_length"], activation_fn=torch.nn.Identity(), **options(spec)
    )
    return model, EncodeWork(model[0].model, model[0]), given


def predict(spec: dict) -> dict[str, Any]:
    """`CrossEncoder.predict` over all pairs at once."""
    model, work, given = reranker(spec)
    begun = time.perf_counter()
    logits = model.predict([(query, passage) for query, row in given for passage in row])
    seconds = time.perf_counter() - begun
    np.save(spec["logits"], logits)
    return {"seconds": seconds, **work.numbers()}


def rank(spec: dict) -> dict[str, Any]:
    """`CrossEncoder.rank`, a question at a time."""
    model, work, given = reranker(spec)
    begun = time.perf_counter()
    ranked = [model.rank(query, row) for query, row in given]
    seconds = time.perf_counter() - begun
    in_order = [sorted(row, key=lambda item: item["corpus_id"]) for row in ranked]
    np.save(spec["logits"], np.array([item["score"] for row in in_order for item in row], np.float32))
    return {"seconds": seconds, **work.numbers()}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    works = {"beir": beir, "evaluator": evaluator, "predict": predict, "rank": rank}
    answer = works[given["work"]](given)
    answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(given["result"]).write_text(json.dumps(answer), encoding="utf-8")

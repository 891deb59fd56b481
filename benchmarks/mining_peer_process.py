"""Encoding or mining by sentence-transformers in a process of its own: `python mining_peer_process.py SPEC.json`.

Imports nothing of the project, so that it runs in an environment of the peer's own. Everything that the specification
does not name is left at the library's default.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from encode_work import EncodeWork
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

WARM_UP = 64


def encode_all(spec: dict) -> dict[str, float]:
    """`SentenceTransformer.encode` over all passages, `rounds` times; the fastest counts."""
    passages = json.loads(Path(spec["texts"]).read_text(encoding="utf-8"))["passages"]
    options = {"model_kwargs": {"dtype": "bfloat16"}} if spec["bf16"] else {}
    model = SentenceTransformer(spec["model"], device="cpu", **options)
    model.max_seq_length = spec["max_length"]
    work = EncodeWork(model[0].model, model[0])
    model.encode(passages[:WARM_UP])
    seconds = []
    for _ in range(spec["rounds"]):
        work.reset()
        begun = time.perf_counter()
        vectors = model.encode(passages)
        seconds.append(time.perf_counter() - begun)
    np.save(spec["vectors"], vectors)
    return {"seconds": min(seconds), **work.numbers()}


def mine_all(spec: dict) -> dict[str, float]:
    """`mine_hard_negatives` with vectors that are there already, `rounds` times; the fastest counts."""
    folder = Path(spec["data"])
    held = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    passages, queries = held["passages"], held["queries"]
    model = SentenceTransformer(spec["model"], device="cpu")
    vectors = np.load(folder / "passages.npy").astype(np.float32)
    query_vectors = np.load(folder / "queries.npy")
    model.encode_document = lambda texts, **_: _as_many(vectors, texts)
    model.encode_query = lambda texts, **_: _as_many(query_vectors, texts)
    pairs = [(query, passages[place]) for query, row in zip(queries, held["positives"], strict=True) for place in row]
    anchors, positives = map(list, zip(*pairs, strict=True))
    dataset = Dataset.from_dict({"anchor": anchors, "positive": positives})
    seconds = []
    for _ in range(spec["rounds"]):
        begun = time.perf_counter()
        mined = mine_hard_negatives(
            dataset, model, corpus=passages, num_negatives=spec["negatives"], relative_margin=1 - spec["margin"],
            sampling_strategy="top", use_faiss=spec["faiss"], output_format=spec["format"], verbose=False,
        )  # fmt: skip
        seconds.append(time.perf_counter() - begun)
    found = numbered(mined, held, spec)
    np.save(spec["found"], found)
    short = int((found < 0).any(1).sum())
    return {"seconds": min(seconds), "negatives": int((found >= 0).sum()), "short": short}


def numbered(mined: Dataset, held: dict, spec: dict) -> np.ndarray:
    """The negatives of each query as passage numbers, int64 [queries, width], -1 where there is none."""
    place = {text: number for number, text in enumerate(held["passages"])}
    row = {text: number for number, text in enumerate(held["queries"])}
    lists: dict[int, dict[int, None]] = {}
    for item in mined:
        texts = [item["negative"]] if spec["format"] == "triplet" else item["positive"][1:]
        lists.setdefault(row[item["anchor"]], {}).update(dict.fromkeys(place[text] for text in texts))
    found = np.full((len(row), spec["negatives"]), -1)
    for number, negatives in lists.items():
        found[number, : len(negatives)] = list(negatives)
    return found


def _as_many(vectors: np.ndarray, texts: list[str]) -> np.ndarray:
    if len(texts) != len(vectors):
        raise ValueError(f"{len(texts)} texts, {len(vectors)} vectors: the texts are not distinct")
    return vectors


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    answer = {"encode": encode_all, "mine": mine_all}[given["work"]](given)
    answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(given["result"]).write_text(json.dumps(answer), encoding="utf-8")

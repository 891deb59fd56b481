"""Encoding or mining by prep's own code in a process of its own: `python mining_ours_process.py SPEC.json`."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from encode_work import EncodeWork
from pipeline_prep.encoding import Encoded, Keep, Model, encode
from pipeline_prep.mining.mine import mine
from pipeline_prep.mining.pool import Compute
from pipeline_prep.mining.task import Mined, MiningTask

from pipeline.assets import resolve_model
from pipeline.contract import contract_of_model
from pipeline.records.sources.ragged import Ragged
from pipeline.retrieval.encode_corpus import Batches
from pipeline.retrieval.hardware import encode_batch_tokens
from pipeline.retrieval.passages import ArrayPassages
from pipeline.retrieval.transformer import LoadOptions
from pipeline.retrieval.world import World
from pipeline.schemas.mining import MiningCompute, MiningKeys

CPU = torch.device("cpu")
WARM_UP = 64


def corpus_table(texts: list[str]) -> pa.Table:
    """Passages as prep holds them; titles are part of the texts here."""
    columns = {"id": [str(number) for number in range(len(texts))], "text": texts, "title": [""] * len(texts)}
    return pa.table({name: pa.array(values, pa.large_string()) for name, values in columns.items()})


def encode_all(spec: dict) -> dict[str, float]:
    """Encode into an empty store `rounds` times; the fastest counts. Vectors are saved where the specification says."""
    held = json.loads(Path(spec["texts"]).read_text(encoding="utf-8"))
    contract = contract_of_model(Path(resolve_model(spec["model"])))
    contract = contract.with_(query_max_length=spec["max_length"], passage_max_length=spec["max_length"])
    model = Model(spec["model"], contract, LoadOptions(), CPU, "bf16" if spec["bf16"] else "fp32")
    encoder = model.load()
    work = EncodeWork(encoder.model)
    batches = Batches(encode_batch_tokens(None, CPU))

    def run(name: str, texts: list[str], questions: list[str]) -> Encoded:
        keep = Keep(Path(spec["folder"]) / name, batches, batches)
        return encode(encoder, model, corpus_table(texts), questions, keep, World())

    run("warm", held["passages"][:WARM_UP], [])
    seconds = []
    for number in range(spec["rounds"]):
        work.reset()
        begun = time.perf_counter()
        encoded = run(f"round{number}", held["passages"], held["queries"])
        seconds.append(time.perf_counter() - begun)
    np.save(spec["vectors"], encoded.passages.take(np.arange(len(encoded.passages))).astype(np.float16))
    np.save(spec["query_vectors"], encoded.queries)
    return {"seconds": min(seconds), **work.numbers()}


def mine_all(spec: dict) -> dict[str, float]:
    """Mine `rounds` times with vectors that are there already, up to lists of texts; the fastest counts."""
    folder = Path(spec["data"])
    held = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    corpus, questions = corpus_table(held["passages"]), held["queries"]
    positives = Ragged.of_rows([sorted(row) for row in held["positives"]])
    given = Ragged.of_rows([[] for _ in questions])
    task = MiningTask(questions, questions, [""] * len(questions), corpus, positives, positives, given)
    queries = np.load(folder / "queries.npy")
    passages = ArrayPassages(np.load(folder / "passages.npy", mmap_mode="r"))
    rules = MiningKeys(
        hard_negatives_to_mine=spec["negatives"], hard_neg_margin=spec["margin"], exclude_answers=False,
        near_duplicate_threshold=None,
    )  # fmt: skip
    how = MiningCompute()
    compute = Compute(CPU, how.mining_batch_size, how.corpus_chunk_size, World())
    seconds = []
    for _ in range(spec["rounds"]):
        begun = time.perf_counter()
        mined = mine(task, queries, passages, rules, seed=0, compute=compute)
        texts = corpus["text"].take(mined.negatives.values).to_pylist()
        seconds.append(time.perf_counter() - begun)
    np.save(spec["found"], padded(mined, spec["negatives"]))
    return {"seconds": min(seconds), "negatives": len(texts), "short": int(mined.short.sum())}


def padded(mined: Mined, width: int) -> np.ndarray:
    """int64 [questions, width], -1 where there is no negative."""
    found = np.full((len(mined.negatives), width), -1)
    found[np.arange(width) < mined.negatives.counts[:, None]] = mined.negatives.values
    return found


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    answer = {"encode": encode_all, "mine": mine_all}[given["work"]](given)
    answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(given["result"]).write_text(json.dumps(answer), encoding="utf-8")

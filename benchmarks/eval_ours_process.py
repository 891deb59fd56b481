"""Search or reranking by the eval stage's own code in a process of its own: `python eval_ours_process.py SPEC.json`."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode_work import EncodeWork
from pipeline_eval.dense import DenseSystem
from pipeline_eval.identity import Identity
from pipeline_eval.loaded import Compute
from pipeline_eval.metrics import in_returned_order, mean_metrics, score_queries
from pipeline_eval.rerank import RerankSystem

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract, contract_of_model
from pipeline.records.beir import TestSet, read_beir
from pipeline.retrieval.hardware import encode_batch_tokens
from pipeline.retrieval.transformer import LoadOptions
from pipeline.schemas.eval import EvalConfig

CPU = torch.device("cpu")
CONTENT = "benchmark"


@dataclass(frozen=True)
class Watched(Compute):
    """The stage calls `suit` as soon as a model is loaded: the clock starts there, and its work is counted."""

    seen: dict[str, Any] = field(default_factory=dict)

    def suit(self, body: torch.nn.Module, options: LoadOptions) -> None:
        super().suit(body, options)
        self.seen.update(work=EncodeWork(body), begun=time.perf_counter())

    def numbers(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self.seen["begun"], **self.seen["work"].numbers()}


def watched(spec: dict) -> Watched:
    """What a configuration gives in its defaults, with an empty cache."""
    dtype = torch.bfloat16 if spec["bf16"] else torch.float32
    chunk = EvalConfig.__dataclass_fields__["corpus_chunk_size"].default
    return Watched(CPU, dtype, encode_batch_tokens(None, CPU), chunk, Path(spec["folder"]) / "cache")


def search(spec: dict) -> dict[str, Any]:
    """Vectors of the corpus (kept on disk), questions, exact search, metrics."""
    test_set, compute = read_beir(Path(spec["data"])), watched(spec)
    contract = contract_of_model(Path(resolve_model(spec["model"])))
    contract = contract.with_(query_max_length=spec["max_length"], passage_max_length=spec["max_length"])
    system = DenseSystem("base", spec["model"], CONTENT, contract, LoadOptions(), compute)
    with system.open(test_set.corpus) as index:
        run = index.search(test_set.queries, max(spec["k_values"]))
        means = mean_metrics(score_queries(test_set.qrels, in_returned_order(run), spec["k_values"]))
        numbers = compute.numbers()
    return {**numbers, "metrics": {name: value for group in means.values() for name, value in group.items()}}


def rerank(spec: dict) -> dict[str, Any]:
    """Every candidate scored and put in order; the logits are written in the order of the candidates."""
    whole, compute = read_beir(Path(spec["data"])), watched(spec)
    given: dict[str, list[str]] = json.loads(Path(spec["candidates"]).read_text(encoding="utf-8"))
    test_set = TestSet(whole.name, whole.corpus, {key: whole.queries[key] for key in given}, whole.qrels)
    contract = EncodingContract("rerank", spec["model"], rerank_max_length=spec["max_length"])
    first, depth = Identity("bm25", CONTENT), max(map(len, given.values()))
    system = RerankSystem("base", spec["model"], CONTENT, contract, LoadOptions(), compute, "bm25", first, depth)
    ranking = {query: {passage: -float(rank) for rank, passage in enumerate(row)} for query, row in given.items()}
    with system.start() as ranker:
        run = ranker.rank(test_set, [ranking])
        numbers = compute.numbers()
    np.save(spec["logits"], np.array([run[query][item] for query, row in given.items() for item in row], np.float32))
    return numbers


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    answer = {"search": search, "rerank": rerank}[given["work"]](given)
    answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(given["result"]).write_text(json.dumps(answer), encoding="utf-8")

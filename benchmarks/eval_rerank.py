"""Part `rerank` of eval.py: a cross-encoder scores the candidates of many questions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from eval_data import candidates_of, write_reranker
from eval_rounds import Rounds, System, chosen, common_columns, in_turns
from parts import Part, Target
from systems import Setting, peer_command, run_process

from pipeline.records.beir import TestSet
from pipeline.run.files import write_json

OURS, OURS_FP32 = "ours", "ours-fp32"
SYSTEMS = {
    OURS: System("rerank", bf16=True, ours=True),
    OURS_FP32: System("rerank", ours=True),
    "predict": System("predict"),
    "rank": System("rank"),
    "predict-bf16": System("predict", bf16=True),
}
SAME = 1e-3


def measure_rerank(arguments: argparse.Namespace, setting: Setting, test_set: TestSet, folder: Path) -> Part:
    """Each round scores other questions: all systems the same ones."""
    model = write_reranker(folder / "reranker", setting.seed)
    candidates = candidates_of(test_set, arguments.queries, arguments.depth)
    for number in range(arguments.rounds):
        part = list(candidates)[number :: arguments.rounds]
        write_json(folder / f"candidates{number}.json", {query: list(candidates[query]) for query in part})

    def measure(system: System, number: int, place: Path) -> dict:
        return rerank(system, setting, model, folder / f"candidates{number}.json", folder / "data", place)

    systems = chosen(SYSTEMS, arguments.bf16_peers)
    rounds = in_turns(systems, arguments.rounds, measure, setting, folder / "rerank")
    logits = {name: np.concatenate([np.load(path) for path in rounds.every(name, "logits")]) for name in systems}
    apart = {name: float(np.abs(values - logits[OURS_FP32]).max()) for name, values in logits.items()}
    peers = ("predict", "rank")
    return Part(
        "Evaluation speed, reranking",
        [row(name, system, rounds, len(logits[OURS]), apart[name]) for name, system in systems.items()],
        {"model": "MiniLM with a random head", "questions": len(candidates), "pairs": len(logits[OURS]),
         "max_length": setting.max_length, "tokens": sum(rounds.every(OURS, "tokens")),
         "spread_of_logits": round(float(logits[OURS_FP32].std()), 3),
         "fp32_against": {name: round(rounds.times(name, OURS_FP32), 2) for name in peers}, **rounds.facts()},
        [Target(f"rerank, against {name}", rounds.times(name, OURS), 2) for name in peers]
        + [Target(f"rerank fp32, largest difference of a logit to {name}", apart[name], SAME, at_most=True)
           for name in peers],
        [f"rerank: a logit of {name} differs from ours-fp32 by {apart[name]:.2g}"
         for name in peers if apart[name] > SAME],
    )  # fmt: skip


def rerank(system: System, setting: Setting, model: Path, candidates: Path, data: Path, folder: Path) -> dict:
    """Run one system once; `logits` is the file with the logits of all pairs, fp32 [pairs]."""
    folder.mkdir(parents=True)
    logits = str(folder / "logits.npy")
    spec = {
        "work": system.work, "model": str(model), "bf16": system.bf16, "max_length": setting.max_length,
        "data": str(data), "candidates": str(candidates), "folder": str(folder), "logits": logits,
    }  # fmt: skip
    if system.ours:
        found = run_process([sys.executable], "eval_ours_process.py", spec, setting, folder)
    else:
        found = run_process(peer_command(trains=False), "eval_peer_process.py", spec, setting, folder)
    return found | {"logits": logits}


def row(name: str, system: System, rounds: Rounds, pairs: int, apart: float) -> dict[str, object]:
    seconds = sum(rounds.every(name, "seconds"))
    return {
        "system": name,
        "dtype": system.dtype,
        "seconds": f"{seconds:.2f}",
        "pairs/s": f"{pairs / seconds:.1f}",
        "tokens/s": f"{sum(rounds.every(name, 'tokens')) / seconds:.0f}",
        **common_columns(name, system, rounds, OURS),
        "largest difference": f"{apart:.2g}",
    }

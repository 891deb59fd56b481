"""Part `search` of eval.py: encode questions and corpus, find the best passages, compute the metrics."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

from eval_rounds import Rounds, System, chosen, common_columns, in_turns
from parts import Part, Target
from systems import MODEL, Setting, peer_command, run_process

from pipeline.assets import resolve_model
from pipeline.records.beir import TestSet

K_VALUES = [1, 5, 10, 100]
OURS, OURS_FP32 = "ours", "ours-fp32"
SYSTEMS = {
    OURS: System("search", bf16=True, ours=True),
    OURS_FP32: System("search", ours=True),
    "beir": System("beir"),
    "evaluator": System("evaluator"),
    "evaluator-bf16": System("evaluator", bf16=True),
}
SAME, SAME_BF16 = 1e-4, 0.002


def measure_search(arguments: argparse.Namespace, setting: Setting, test_set: TestSet, folder: Path) -> Part:
    def measure(system: System, number: int, place: Path) -> dict:
        return search(system, setting, folder / "data", place)

    systems = chosen(SYSTEMS, arguments.bf16_peers)
    rounds = in_turns(systems, arguments.rounds, measure, setting, folder / "search")
    metrics = {name: item["metrics"] for name, item in rounds.found[-1].items()}
    differing = {name: largest_difference(metrics[OURS_FP32], metrics[name]) for name in ("beir", "evaluator")}
    lost = abs(metrics[OURS]["NDCG@10"] - metrics[OURS_FP32]["NDCG@10"])
    return Part(
        "Evaluation speed, full-corpus search",
        [row(name, system, rounds) for name, system in systems.items()],
        {"model": MODEL, "questions": len(test_set.queries), "passages": len(test_set.corpus),
         "max_length": setting.max_length, "k_values": K_VALUES, "tokens": rounds.found[-1][OURS]["tokens"],
         "floor_allows": {name: round(rounds.times(name, OURS_FP32) / rounds.share(OURS_FP32, "fp32"), 2)
                          for name in ("beir", "evaluator")},
         "largest_difference_of_a_metric": differing, **rounds.facts()},
        [Target(f"search {kind}, against {peer}", rounds.times(peer, ours), wanted)
         for kind, ours, wanted in (("fp32", OURS_FP32, 1.15), ("bf16", OURS, 2.5)) for peer in differing]
        + [Target(f"search fp32, largest difference of a metric to {name}", value, SAME, at_most=True)
           for name, value in differing.items()]
        + [Target("search bf16, difference in nDCG@10", lost, SAME_BF16, at_most=True)],
        [f"search: a metric of {name} differs from ours-fp32 by {value:.2g}"
         for name, value in differing.items() if value > SAME],
    )  # fmt: skip


def search(system: System, setting: Setting, data: Path, folder: Path) -> dict:
    """Run one system once; `metrics` are its means over all questions."""
    folder.mkdir(parents=True)
    spec = {
        "work": system.work, "model": MODEL if system.ours else resolve_model(MODEL), "bf16": system.bf16,
        "max_length": setting.max_length, "k_values": K_VALUES, "data": str(data), "folder": str(folder),
    }  # fmt: skip
    if system.ours:
        return run_process([sys.executable], "eval_ours_process.py", spec, setting, folder)
    # beir belongs to our own environment: the eval stage names it
    python = [sys.executable] if system.work == "beir" else peer_command(trains=False)
    return run_process(python, "eval_peer_process.py", spec, setting, folder)


def largest_difference(ours: dict[str, float], peers: dict[str, float]) -> float:
    """Over the metrics that both have."""
    return max(abs(value - ours[name]) for name, value in peers.items() if name in ours)


def row(name: str, system: System, rounds: Rounds) -> dict[str, object]:
    seconds, last = median(rounds.every(name, "seconds")), rounds.found[-1][name]
    return {
        "system": name,
        "dtype": system.dtype,
        "seconds": f"{seconds:.2f}",
        "tokens/s": f"{last['tokens'] / seconds:.0f}",
        **common_columns(name, system, rounds, OURS),
        "nDCG@10": f"{last['metrics']['NDCG@10']:.4f}",
        "Recall@100": f"{last['metrics']['Recall@100']:.4f}",
    }

"""Part `scale` of mining.py: a million passages, time against the raw matrix product, memory, and two processes."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from parts import Part, Target
from systems import Setting, run_process

SCRIPT = "mining_scale_process.py"
TOP, MARGIN = 50, 0.95
RANKS = 2


def measure_scale(arguments: argparse.Namespace, setting: Setting, folder: Path) -> Part:
    sizes, queries = sorted(arguments.sizes), arguments.scale_queries
    data = folder / "data"
    data.mkdir(parents=True)
    run({"work": "make", "data": str(data), "passages": sizes[-1], "queries": queries, "smallest": sizes[0],
         "similarity": arguments.similarity, "seed": setting.seed}, setting, folder / "make")  # fmt: skip
    raw = [gemm(arguments, setting, data, folder / "gemm0")]
    found = {size: search(size, queries, arguments, setting, data, folder / f"search{size}") for size in sizes}
    raw.append(gemm(arguments, setting, data, folder / "gemm1"))
    best = {name: min(item[name] for item in raw) for name in ("gemm", "gemm_topk")}  # other work slows it
    rows = [line(size, queries, item, best) for size, item in found.items()]
    ranks, wrong = measure_ranks(arguments, setting, data, folder)
    last = found[sizes[-1]]
    over_gemm = last["seconds"] / (best["gemm"] * sizes[-1] * queries)
    per_passage = [item["seconds"] / size for size, item in found.items()]
    return Part(
        "Search at scale", rows,
        {"k": TOP, "margin": MARGIN, "queries": queries, "similarity": arguments.similarity,
         "questions_with_passages_above_margin": last["bitten"], "raw_tiles_measured": raw[0]["tiles"],
         "raw_seconds_per_tflop": best["gemm"] / (2 * 384) * 1e12, "ranks": ranks},
        [Target("scale, seconds over raw GEMM", over_gemm, 1.3, at_most=True),
         Target("scale, peak GiB above the map", last["over_map_mib"] / 1024, 2, at_most=True),
         Target("scale, seconds per passage, largest size over smallest", per_passage[-1] / per_passage[0], 1.1,
                at_most=True)],
        wrong,
    )  # fmt: skip


def measure_ranks(
    arguments: argparse.Namespace, setting: Setting, data: Path, folder: Path
) -> tuple[dict[str, float], list[str]]:
    """Seconds of one and of two processes with one thread each, and what differs between their results."""
    size, queries = min(arguments.sizes), min(arguments.rank_queries, arguments.scale_queries)
    single = replace(setting, threads=1)
    seconds, results = {}, []
    for ranks in (1, RANKS):
        place = folder / f"ranks{ranks}"
        found = search(size, queries, arguments, single, data, place, ranks)
        seconds[f"seconds_{ranks}"] = found["seconds"]
        results.append(np.load(place / "found.npz"))
    wrong = [
        f"scale: {name} of {RANKS} processes differ from those of 1"
        for name in ("scores", "indices", "above")
        if results[0][name].tobytes() != results[1][name].tobytes()
    ]
    return {"passages": size, "queries": queries, **seconds, "bit_identical": not wrong}, wrong


def search(
    size: int,
    queries: int,
    arguments: argparse.Namespace,
    setting: Setting,
    data: Path,
    folder: Path,
    ranks: int = 1,
) -> dict[str, float]:
    """Our search in one process, or in several that torchrun starts; what it found is `folder`/found.npz."""
    spec = {
        "work": "search", "data": str(data), "passages": size, "queries": queries, "k": TOP, "margin": MARGIN,
        "rounds": arguments.rounds, "found": str(folder / "found.npz"),
    }  # fmt: skip
    more = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    return run(spec, setting, folder, more)


def gemm(arguments: argparse.Namespace, setting: Setting, data: Path, folder: Path) -> dict[str, float]:
    spec = {"work": "gemm", "data": str(data), "tiles": arguments.tiles, "rounds": arguments.rounds, "k": TOP}
    return run(spec, setting, folder)


def run(spec: dict, setting: Setting, folder: Path, more: list[str] | None = None) -> dict[str, float]:
    folder.mkdir(parents=True)
    return run_process([sys.executable, *(more or [])], SCRIPT, spec, setting, folder)


def line(size: int, queries: int, item: dict[str, float], raw: dict[str, float]) -> dict[str, object]:
    scores = size * queries
    return {
        "passages": f"{size:,}",
        "seconds": f"{item['seconds']:.2f}",
        "seconds per million": f"{item['seconds'] / size * 1e6:.1f}",
        "raw GEMM s": f"{raw['gemm'] * scores:.2f}",
        "over GEMM": f"{item['seconds'] / (raw['gemm'] * scores):.2f}x",
        "GEMM + topk s": f"{raw['gemm_topk'] * scores:.2f}",
        "over GEMM + topk": f"{item['seconds'] / (raw['gemm_topk'] * scores):.2f}x",
        "peak MiB above the map": f"{item['over_map_mib']:.0f}",
    }

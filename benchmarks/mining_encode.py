"""Part `encode` of mining.py: the passages through the model, by us and by the peer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from mining_data import Questions
from parts import Part, Target
from rows import read_texts
from systems import MODEL, Setting, measure_gemm, peer_command, run_process

from pipeline.assets import resolve_model
from pipeline.run.files import write_json

SYSTEMS = {"ours": True, "ours-fp32": False, "peer-defaults": False, "peer-bf16": True}
"""Name -> bf16."""
_SAME = 0.99
"""Smallest cosine between two systems' vectors of one text."""


def measure_encode(arguments: argparse.Namespace, setting: Setting, folder: Path) -> Part:
    texts = read_texts(arguments.data)[: arguments.limit]
    peaks = [measure_gemm(setting, folder / "gemm0")]
    held = Questions(texts, [], [])
    found = {name: encode(name, held, arguments, setting, folder / name) for name in SYSTEMS}
    peaks.append(measure_gemm(setting, folder / "gemm1"))
    peak = {kind: max(item[kind] for item in peaks) for kind in ("fp32", "bf16")}  # other work on the machine lowers it
    cosine = {name: least_cosine(folder / "ours-fp32", folder / name) for name in SYSTEMS}
    slower = {name: item["seconds"] / found["ours"]["seconds"] for name, item in found.items()}
    rows = [row(name, item, len(texts), peak, slower[name], cosine[name]) for name, item in found.items()]
    return Part(
        "Encoding speed", rows,
        {"model": MODEL, "texts": len(texts), "max_length": arguments.max_length, "tokens": found["ours"]["tokens"],
         "gemm_tflops": {kind: round(value / 1e12, 3) for kind, value in peak.items()}},
        [Target("encode, against the peer's defaults", slower["peer-defaults"], 2.5),
         Target("encode, against the peer's bf16", slower["peer-bf16"], 1.3)],
        [f"encode: {name}'s vectors differ from ours-fp32, least cosine {value:.4f}"
         for name, value in cosine.items() if value < _SAME],
    )  # fmt: skip


def encode(
    name: str,
    held: Questions,
    arguments: argparse.Namespace,
    setting: Setting,
    folder: Path,
    store: Path | None = None,
) -> dict[str, float]:
    """Run one system; its vectors are `folder`/passages.npy, and queries.npy of ours. `store`: ours looks there too."""
    folder.mkdir(parents=True)
    write_json(folder / "texts.json", {"passages": held.passages, "queries": held.queries})
    ours = name.startswith("ours")
    spec = {
        "work": "encode", "model": MODEL if ours else resolve_model(MODEL), "bf16": SYSTEMS[name],
        "max_length": arguments.max_length, "rounds": arguments.rounds, "texts": str(folder / "texts.json"),
        "folder": str(store or folder), "vectors": str(folder / "passages.npy"),
        "query_vectors": str(folder / "queries.npy"),
    }  # fmt: skip
    if ours:
        return run_process([sys.executable], "mining_ours_process.py", spec, setting, folder)
    return run_process(peer_command(trains=False), "mining_peer_process.py", spec, setting, folder)


def row(
    name: str, item: dict[str, float], texts: int, peak: dict[str, float], slower: float, cosine: float
) -> dict[str, object]:
    kind = "bf16" if SYSTEMS[name] else "fp32"
    return {
        "system": name,
        "dtype": kind,
        "seconds": f"{item['seconds']:.2f}",
        "texts/s": f"{texts / item['seconds']:.1f}",
        "tokens/s": f"{item['tokens'] / item['seconds']:.0f}",
        "padding": f"{item['padding']:.1%}",
        "share of GEMM": f"{item['flops'] / item['seconds'] / peak[kind]:.0%}",
        "peak MiB": f"{item['peak_mib']:.0f}",
        "least cosine": f"{cosine:.4f}",
        "slower": f"{slower:.2f}x",
    }


def least_cosine(first: Path, second: Path) -> float:
    """Of the vectors of the same text, over all texts."""
    left, right = (np.load(folder / "passages.npy").astype(np.float32) for folder in (first, second))
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(1) / lengths).min())

"""Part `mine` of mining.py: vectors are there, negatives are wanted, by us and by the peer."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from mining_data import questions_of, write_random, write_repeated
from mining_encode import encode
from parts import Part, Target
from rows import read_texts
from systems import MODEL, Setting, peer_command, run_process

from pipeline.assets import resolve_model

NEGATIVES, MARGIN = 5, 0.95
OURS = "ours"
PEERS = {
    "peer-defaults": {"format": "triplet", "faiss": False},
    "peer-lists": {"format": "labeled-list", "faiss": False},
    "peer-faiss": {"format": "labeled-list", "faiss": True},
}
"""Its default output is triplets; lists are the quickest that keep rows short of negatives."""
_SAME = 0.99
"""Share of the peer's negatives that must be ours too; vectors of fp16 are not quite of length one."""


def measure_mine(arguments: argparse.Namespace, setting: Setting, folder: Path) -> Part:
    rows, targets, wrong, facts = [], [], [], {"negatives": NEGATIVES, "margin": MARGIN}
    real = real_data(arguments, setting, folder)
    synthetic = write_random(folder / "random", arguments.mine_passages, arguments.mine_queries, setting.seed)
    for name, data in (("real", real), ("random", synthetic)):
        found = {OURS: run(OURS, data, arguments, setting, folder / f"{name}-ours")}
        for peer in arguments.peers:
            found[peer] = run(peer, data, arguments, setting, folder / f"{name}-{peer}")
        agree = {system: agreement(folder / f"{name}-{system}", folder / f"{name}-ours") for system in found}
        held = json.loads((data / "texts.json").read_text(encoding="utf-8"))
        size = f"{len(held['passages']):,} x {len(held['queries']):,}"
        rows += [line(name, size, system, item, found[OURS], agree[system]) for system, item in found.items()]
        targets += [Target(f"mine {name}, against {peer}", found[peer]["seconds"] / found[OURS]["seconds"], 5)
                    for peer in arguments.peers]  # fmt: skip
        wrong += [f"mine {name}: only {share:.2%} of the negatives of {system} are ours too"
                  for system, share in agree.items() if share < _SAME]  # fmt: skip
        wrong += [f"mine {name}: we leave more rows short of negatives than {peer}"
                  for peer in arguments.peers if found[peer]["short"] < found[OURS]["short"]]  # fmt: skip
    return Part("Mining speed, vectors ready", rows, facts, targets, wrong)


def real_data(arguments: argparse.Namespace, setting: Setting, folder: Path) -> Path:
    """The train questions of --data with their vectors, which our encoder makes outside the measured time."""
    found = questions_of(arguments.data, read_texts(arguments.data))
    once = argparse.Namespace(**{**vars(arguments), "rounds": 1})
    encode(OURS, found, once, setting, folder / "encoded", store=folder.parent / "encode" / OURS)
    vectors = [np.load(folder / "encoded" / f"{name}.npy") for name in ("passages", "queries")]
    return write_repeated(folder / "real", found, *vectors, arguments.mine_queries, setting.seed)


def run(name: str, data: Path, arguments: argparse.Namespace, setting: Setting, folder: Path) -> dict[str, float]:
    """Run one system; what it found is `folder`/found.npy."""
    folder.mkdir(parents=True)
    spec = {
        "work": "mine", "data": str(data), "negatives": NEGATIVES, "margin": MARGIN, "rounds": arguments.rounds,
        "found": str(folder / "found.npy"),
    }  # fmt: skip
    if name == OURS:
        return run_process([sys.executable], "mining_ours_process.py", spec, setting, folder)
    spec |= {"model": resolve_model(MODEL), **PEERS[name]}
    return run_process(peer_command(trains=False), "mining_peer_process.py", spec, setting, folder)


def line(
    data: str, size: str, system: str, item: dict[str, float], ours: dict[str, float], agree: float
) -> dict[str, object]:
    return {
        "data": data,
        "passages x questions": size,
        "system": system,
        "seconds": f"{item['seconds']:.3f}",
        "negatives": f"{item['negatives']:.0f}",
        "rows short": f"{item['short']:.0f}",
        "also ours": f"{agree:.2%}",
        "peak MiB": f"{item['peak_mib']:.0f}",
        "slower": f"{item['seconds'] / ours['seconds']:.2f}x",
    }


def agreement(theirs: Path, ours: Path) -> float:
    """Share of their negatives that are ours too. Where they have fewer than wanted we may have more."""
    left, right = (np.load(folder / "found.npy") for folder in (theirs, ours))
    there = left >= 0
    return float(((left[:, :, None] == right[:, None, :]).any(2) & there).sum() / max(there.sum(), 1))

"""Search among many synthetic vectors in a process of its own: `python mining_scale_process.py SPEC.json`.

`work` is `make` (write the vectors), `gemm` (the raw matrix product) or `search` (ours; also under torchrun).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.retrieval.passages import ArrayPassages
from pipeline.retrieval.search import Limits, Nearest, nearest, pair_scores
from pipeline.retrieval.world import World

WIDTH = 384
QUERY_BLOCK = 1024
TILE = 8192
"""Passages of a tile of the raw product."""
_MADE_AT_ONCE = 50_000


def make(spec: dict) -> dict[str, float]:
    """Unit vectors in fp16, and queries near one of the first `smallest` passages each."""
    folder, count = Path(spec["data"]), spec["passages"]
    random = np.random.default_rng(spec["seed"])
    kept = np.lib.format.open_memmap(folder / "passages.npy", "w+", np.float16, (count, WIDTH))
    for start in range(0, count, _MADE_AT_ONCE):
        kept[start : start + _MADE_AT_ONCE] = unit(random, min(_MADE_AT_ONCE, count - start))
    kept.flush()
    positives = random.integers(0, spec["smallest"], spec["queries"])
    near, far = spec["similarity"], (1 - spec["similarity"] ** 2) ** 0.5
    queries = near * kept[positives].astype(np.float32) + far * unit(random, spec["queries"])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "positives.npy", positives)
    return {}


def unit(random: np.random.Generator, count: int) -> np.ndarray:
    vectors = random.standard_normal((count, WIDTH), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def gemm(spec: dict) -> dict[str, float]:
    """Seconds per score of the blocked fp32 product alone, and with a plain `topk` of each block."""
    folder = Path(spec["data"])
    passages = np.load(folder / "passages.npy", mmap_mode="r")
    queries = torch.from_numpy(np.load(folder / "queries.npy")).split(QUERY_BLOCK)
    queries = [block for block in queries if len(block) == len(queries[0])]
    rows = min(TILE, len(passages))
    tiles = [
        torch.from_numpy(passages[start : start + rows].astype(np.float32))
        for start in range(0, len(passages) - rows + 1, rows)[: spec["tiles"]]
    ]
    buffer = torch.empty(len(queries[0]), rows)

    def product(some: list[torch.Tensor], then: Callable[[torch.Tensor], object]) -> float:
        begun = time.perf_counter()
        for tile in some:
            for block in queries:
                torch.mm(block, tile.T, out=buffer)
                then(buffer)
        return (time.perf_counter() - begun) / (len(some) * len(queries) * buffer.numel())

    product(tiles[:1], lambda _: None)
    few = tiles[: max(1, len(tiles) // 4)]  # topk takes far longer than the product
    return {
        "gemm": min(product(tiles, lambda _: None) for _ in range(spec["rounds"])),
        "gemm_topk": min(product(few, lambda scores: scores.topk(min(spec["k"], rows))) for _ in range(spec["rounds"])),
        "tiles": len(tiles),
    }


def search(spec: dict) -> dict[str, float] | None:
    """The fastest of `rounds` searches with margins; the first process writes what it found."""
    torch.set_num_threads(spec["threads"])
    world = World.join(timeout_minutes=10)
    folder = Path(spec["data"])
    queries = np.load(folder / "queries.npy")[: spec["queries"]]
    positives = np.load(folder / "positives.npy")[: spec["queries"]]
    memory = Memory()
    passages = ArrayPassages(np.load(folder / "passages.npy", mmap_mode="r")[: spec["passages"]])
    rows = np.arange(len(queries))
    ceilings = (spec["margin"] * pair_scores(queries, passages, rows, positives)).astype(np.float32)
    limits = Limits(ceilings, excluded=(rows, positives))
    seconds = []
    with memory:
        for _ in range(spec["rounds"]):
            world.wait()
            begun = time.perf_counter()
            found = nearest(queries, passages, spec["k"], limits, query_block=QUERY_BLOCK, world=world)
            seconds.append(time.perf_counter() - begun)
    if world.leads and spec["found"]:
        keep(Path(spec["found"]), found)
    world.leave()
    bitten = float((found.above > 0).mean())
    return {"seconds": min(seconds), "over_map_mib": memory.peak, "bitten": bitten} if world.leads else None


def keep(path: Path, found: Nearest) -> None:
    np.savez(path, scores=found.scores, indices=found.indices, above=found.above)


class Memory:
    """The largest resident memory while it is entered, the memory map left out, MiB in `peak`.

    Private memory (RssAnon, RssShmem) is looked at every few milliseconds. File pages (RssFile) count as they are when
    this object is made: the libraries; what is added later is the map.
    """

    def __init__(self) -> None:
        self.libraries = self._now("RssFile")
        self.peak = 0.0
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self.watcher.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.watcher.join()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.libraries + self._now("RssAnon", "RssShmem"))
            if self.over.wait(0.005):
                return

    @staticmethod
    def _now(*names: str) -> float:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        values = dict(line.split(":", 1) for line in lines)
        return sum(int(values[name].split()[0]) for name in names) / 1024


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    answer = {"make": make, "gemm": gemm, "search": search}[given["work"]](given)
    if answer is not None:
        Path(given["result"]).write_text(json.dumps(answer), encoding="utf-8")

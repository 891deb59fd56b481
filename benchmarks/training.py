"""Speed and memory of training, ours against sentence-transformers, as ratios measured in one run.

    python benchmarks/training.py --data BEIR_DIR [--family embed|rerank] [--smoke]

Same rows, lengths, negatives, batch, steps, optimizer steps and threads; each system in a process of its own; the first
steps left out for all; no checkpoints and no validation in the timed part. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from rows import Row, distinct_share, read_texts, shared_rows, show, write_rows
from systems import PEER, Setting, System, measure_gemm, measure_gradcache, run_ours, run_peer

from pipeline.errors import PipelineError
from pipeline.home import workspace

OURS = "ours"
NEGATIVES = 4
SHARES = (0.4, 1.0)
PEER_LOSSES = {"embed": ("mnrl", "cached"), "rerank": ("listnet", "bce")}
"""Names in peer_process.py: (Cached)MultipleNegativesRankingLoss, ListNetLoss and BinaryCrossEntropyLoss."""


def systems_of(family: str) -> dict[str, System]:
    """Ours first: every ratio is against it."""
    ours = [System(OURS, bf16=True), System("ours-fp32")]
    peers = [
        System(f"{loss}-{'bf16' if bf16 else 'fp32'}", loss, bf16)
        for loss in PEER_LOSSES[family]
        for bf16 in (False, True)
    ]
    return {system.name: system for system in (*ours, *peers)}


def measure(arguments: argparse.Namespace, setting: Setting, rows: list[Row], folder: Path) -> list[dict]:
    """Run every chosen system on these rows."""
    train, peer_rows = write_rows(folder / "data", rows)
    found = []
    for number, system in enumerate(systems_of(setting.family).values()):
        if arguments.systems and system.name not in arguments.systems:
            continue
        print(f"{system.name} …", file=sys.stderr, flush=True)
        place = folder / f"system{number}"
        seen = (
            run_peer(system, setting, peer_rows, place) if system.peer_loss else run_ours(system, setting, train, place)
        )
        found.append({"system": system.name, "dtype": "bf16" if system.bf16 else "fp32", **seen})
    return found


def table(found: list[dict], share: float, batch: int, gemm: dict[str, float]) -> list[dict[str, object]]:
    """One line for each system; `slower` and `memory` are its seconds and peak over ours."""
    ours = next((item for item in found if item["system"] == OURS), None)
    return [
        {
            "system": item["system"],
            "distinct/total": f"{share:.2f}",
            "seconds": f"{item['seconds']:.2f}",
            "rows/s": f"{item['steps'] * batch / item['seconds']:.1f}",
            "tokens/s": f"{item['tokens'] / item['seconds']:.0f}",
            "padding": f"{item['padding']:.0%}",
            "MFU": f"{item['flops'] / item['seconds'] / gemm[item['dtype']]:.0%}",
            "peak MiB": f"{item['peak_mib']:.0f}",
            "process s": f"{item['process_s']:.1f}",
            "slower": f"{item['seconds'] / ours['seconds']:.2f}x" if ours else "",
            "memory": f"{item['peak_mib'] / ours['peak_mib']:.2f}x" if ours else "",
        }
        for item in found
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=workspace() / "data" / "demo" / "corpus", help="BEIR folder or folder of .md files"
    )
    parser.add_argument("--family", choices=("embed", "rerank"), default="embed")
    parser.add_argument("--rows", type=int, help="rows in all, warm-up included (instead of --steps)")
    parser.add_argument("--batch", type=int, default=32, help="rows per step")
    parser.add_argument("--steps", type=int, default=4, help="measured steps")
    parser.add_argument("--warmup", type=int, default=1, help="first steps that do not count")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--systems", nargs="*", default=[], help="only these, such as ours mnrl-bf16")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys of our stage")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    parser.add_argument("--smoke", action="store_true", help="16 rows, 4 per step, 64 tokens: does it run at all?")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rows, arguments.batch, arguments.max_length = 16, 4, 64
    if arguments.rows:
        arguments.steps = arguments.rows // arguments.batch - arguments.warmup
    if arguments.steps < 1 or arguments.warmup < 1:
        parser.error("at least one step of warm-up and one measured step")
    return arguments


def main() -> None:
    arguments = parse()
    setting = Setting(
        arguments.family, arguments.batch, arguments.warmup, max_length=arguments.max_length, threads=arguments.threads,
        cpu=arguments.device == "cpu", overrides=tuple(arguments.set),
    )  # fmt: skip
    texts = read_texts(arguments.data)
    count = (arguments.steps + arguments.warmup) * arguments.batch
    measured: dict[float, list[dict]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peaks = [measure_gemm(setting, folder / "gemm")]
        for share in SHARES if setting.family == "embed" else SHARES[-1:]:  # pairs share nothing
            rows = shared_rows(texts, count, share=share, batch=setting.batch, negatives=NEGATIVES, seed=setting.seed)
            measured[distinct_share(rows, setting.batch)] = measure(arguments, setting, rows, folder / f"share{share}")
            peaks.append(measure_gemm(setting, folder / f"gemm{share}"))
        cached = (
            measure_gradcache(setting, rows[: setting.batch], folder / "gradcache")
            if setting.family == "embed" and setting.cpu
            else None
        )
    gemm = {kind: max(peak[kind] for peak in peaks) for kind in ("fp32", "bf16")}  # other work on the machine lowers it
    lines = [line for share, found in measured.items() for line in table(found, share, setting.batch, gemm)]
    facts = {
        "data": str(arguments.data), "peer": PEER, "batch": setting.batch, "steps": arguments.steps,
        "max_length": setting.max_length, "threads": setting.threads, "device": arguments.device,
        "gemm_tflops": {kind: round(value / 1e12, 3) for kind, value in gemm.items()},
        "gradcache_overhead": cached,
        "overrides": list(setting.overrides),
    }  # fmt: skip
    show(f"Training speed, {arguments.family}", lines, facts, arguments.output)


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(f"error: {error}")

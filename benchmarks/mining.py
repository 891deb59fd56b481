"""Speed and memory of prep's encoding and mining, against sentence-transformers and the raw matrix product.

    python benchmarks/mining.py --data BEIR_DIR [--part encode mine scale] [--smoke]

Same model, texts, vectors, settings and threads; each system in a process of its own; ratios of one run. Exit code 1
if results that should agree do not. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from mining_encode import measure_encode
from mining_mine import PEERS, measure_mine
from mining_scale import measure_scale
from parts import run_parts
from systems import PEER, Setting

from pipeline.errors import PipelineError
from pipeline.home import workspace

PARTS = {"encode": measure_encode, "mine": measure_mine, "scale": measure_scale}
SMOKE = {
    "limit": 64, "max_length": 64, "rounds": 1, "mine_passages": 5000, "mine_queries": 300,
    "sizes": [10_000, 20_000, 40_000], "scale_queries": 1024, "rank_queries": 200, "tiles": 2,
    "peers": ["peer-lists"],
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=workspace() / "data" / "demo" / "corpus", help="BEIR folder or folder of .md files"
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit", type=int, help="encode: only the first so many passages")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2, help="of each measurement; the fastest counts")
    parser.add_argument("--mine-passages", type=int, default=100_000, help="mine: random vectors beside the real ones")
    parser.add_argument("--mine-queries", type=int, default=5000, help="mine: questions; real ones are used again")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="mine: ways to call the peer")
    parser.add_argument("--sizes", type=int, nargs="+", default=[250_000, 500_000, 1_000_000], help="scale: passages")
    parser.add_argument("--scale-queries", type=int, default=20_000)
    parser.add_argument("--rank-queries", type=int, default=2000, help="scale: questions for 2 processes against 1")
    parser.add_argument(
        "--similarity", type=float, default=0.3, help="scale: of a question to its positive; lower: the margin bites"
    )
    parser.add_argument("--tiles", type=int, default=12, help="scale: tiles of the raw product; scaled to all")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where vectors are written; default: the temporary folder")
    parser.add_argument("--output", type=Path, help="also write the JSON here, one file for each part")
    parser.add_argument("--smoke", action="store_true", help="small sizes: does it run at all?")
    arguments = parser.parse_args()
    if arguments.smoke:
        vars(arguments).update(SMOKE)
    return arguments


def main() -> None:
    arguments = parse()
    setting = Setting("embed", batch=0, skip_steps=0, max_length=arguments.max_length, threads=arguments.threads)
    facts = {"data": str(arguments.data), "peer": PEER, "threads": arguments.threads, "rounds": arguments.rounds}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        run_parts(
            arguments.part, lambda name: PARTS[name](arguments, setting, Path(folder) / name), facts, arguments.output
        )


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(f"error: {error}")

"""Speed of evaluation, full-corpus search and reranking, against beir and sentence-transformers.

    python benchmarks/eval.py --data BEIR_DIR [--part search rerank] [--smoke]

Same model, texts, lengths and threads; each system in a process of its own; the systems in turn, so that a machine
whose speed swings is as kind to one as to the other. Exit code 1 if results that should agree do not. See
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from eval_data import read_test_set
from eval_rerank import measure_rerank
from eval_search import measure_search
from parts import run_parts
from systems import PEER, Setting

from pipeline.errors import PipelineError
from pipeline.home import workspace
from pipeline.records.beir import write_beir

PARTS = {"search": measure_search, "rerank": measure_rerank}
SMOKE = {"limit": 60, "max_length": 64, "rounds": 1, "queries": 10, "depth": 10, "bf16_peers": False}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=workspace() / "data" / "demo" / "corpus", help="BEIR folder or folder of .md files"
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit", type=int, help="only the first so many passages and the questions about them")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a text; rerank: of a pair")
    parser.add_argument("--rounds", type=int, default=3, help="each round measures every system once")
    parser.add_argument("--queries", type=int, default=300, help="rerank: questions, cut into as many parts as rounds")
    parser.add_argument("--depth", type=int, default=100, help="rerank: passages of a question")
    parser.add_argument(
        "--bf16-peers", action=argparse.BooleanOptionalAction, default=True, help="also the peers in bf16; no target"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where vectors are written; default: the temporary folder")
    parser.add_argument("--output", type=Path, help="also write the JSON here, one file for each part")
    parser.add_argument("--smoke", action="store_true", help="60 passages, 64 tokens: does it run at all?")
    arguments = parser.parse_args()
    if arguments.smoke:
        vars(arguments).update(SMOKE)
    if arguments.rounds < 1 or arguments.queries < arguments.rounds:
        parser.error("at least one round, and one question for each")
    return arguments


def main() -> None:
    arguments = parse()
    setting = Setting("embed", batch=0, skip_steps=0, max_length=arguments.max_length, threads=arguments.threads)
    test_set = read_test_set(arguments.data, arguments.limit)
    facts = {"data": str(arguments.data), "peer": PEER, "threads": arguments.threads, "rounds": arguments.rounds}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_beir(folder / "data", test_set)
        run_parts(
            arguments.part, lambda part: PARTS[part](arguments, setting, test_set, folder), facts, arguments.output
        )


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(f"error: {error}")

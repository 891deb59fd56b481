"""The engine that calls LLMs: its rate and CPU against the bare openai client, its way out of a storm, its journal;
and the memory of a run over 100,000 documents.

    python benchmarks/sdg.py [--calls 5000] [--delay 0.5] [--limit 64] [--part calls storm journal documents] [--smoke]

A server of our own answers after a fixed delay; server, engine and client are processes of their own. Exit code 1 if
a call was lost or the limit was not kept. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from parts import Part, Target, run_parts
from sdg_clients import Load, apart, call_for, call_openai, call_ours, keep_answers
from sdg_documents import stream, write_corpus
from sdg_server import Behaviour, serving

from pipeline.errors import PipelineError

OURS = "ours"
SYSTEMS = {OURS: call_ours, "openai": call_openai}
SMOKE = {"calls": 1024, "delay": 0.2, "limit": 32, "storm": [1, 3, 7], "journal_seconds": 1.0, "documents": 300}
_WAYS = {"shared commits": (500, True), "a commit for each": (50, False)}
"""Name -> answers a second, and whether they share commits."""
_LAST_SECONDS = 3


def measure_calls(arguments: argparse.Namespace, folder: Path) -> Part:
    ideal = arguments.limit / arguments.delay
    rows, wrong, cost, share = [], [], {}, {}
    for name, work in SYSTEMS.items():
        (place := folder / name).mkdir(parents=True)
        with serving(Behaviour(arguments.delay, arguments.limit)) as (url, ask):
            found = apart(work, Load(url, arguments.calls, arguments.limit, place))
            seen = ask()
        cost[name] = found.cpu / arguments.calls * 1000
        share[name] = arguments.calls / found.seconds / ideal
        rows.append({
            "system": name, "seconds": f"{found.seconds:.2f}", "calls/s": f"{arguments.calls / found.seconds:.1f}",
            "of the ideal rate": f"{share[name]:.1%}", "CPU ms/call": f"{cost[name]:.2f}",
            "CPU": f"{cost[name] / cost[OURS]:.2f}x", "most at once": seen.most_at_once,
        })  # fmt: skip
        if (seen.answered, seen.refused) != (arguments.calls + 1, 0):  # and the first one, which is not timed
            wrong.append(f"calls: {name}: {seen.answered} answers, {seen.refused} refused, of {arguments.calls + 1}")
    targets = [
        Target("calls: share of the ideal rate", share[OURS], 0.95),
        Target("calls: CPU ms of a call", cost[OURS], 1, at_most=True),
    ]
    facts = {"calls": arguments.calls, "ideal calls/s": ideal, "openai": version("openai")}
    return Part("Calls", rows, facts, targets, wrong)


def measure_storm(arguments: argparse.Namespace, folder: Path) -> Part:
    folder.mkdir(parents=True)
    before, storm, after = arguments.storm
    with serving(Behaviour(arguments.delay, arguments.limit, (before, before + storm))) as (url, ask):
        apart(call_for, Load(url, 0, arguments.limit, folder), before + storm + after)
        seen = ask()
    end = before + storm + after
    last = sum(seen.per_second[end - _LAST_SECONDS : end]) / _LAST_SECONDS * arguments.delay / arguments.limit
    recovery = math.inf if seen.recovery is None else seen.recovery
    row = {
        "storm s": storm, "refused": seen.refused, "answered": seen.answered, "most at once": seen.most_at_once,
        "s to the limit": f"{recovery:.1f}", f"rate of the last {_LAST_SECONDS} s": f"{last:.1%}",
    }  # fmt: skip
    targets = [Target("storm: seconds to the limit", recovery, 30, at_most=True)]
    wrong = [] if seen.refused else ["storm: nothing was refused, so nothing was measured"]
    return Part("A storm of 429", [row], {"answers in each second": seen.per_second}, targets, wrong)


def measure_journal(arguments: argparse.Namespace, folder: Path) -> Part:
    folder.mkdir(parents=True)
    rows = []
    for name, (rate, grouped) in _WAYS.items():
        cpu, waits = apart(keep_answers, folder, rate, arguments.journal_seconds, grouped)
        median, slow = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
        rows.append({
            "answers": name, "a second": rate, "CPU ms": f"{cpu * 1000:.2f}", "median wait ms": f"{median * 1000:.1f}",
            "p99 wait ms": f"{slow * 1000:.1f}",
        })  # fmt: skip
    return Part("Journal", rows, {"folder": str(folder.parent.parent)}, [], [])


def measure_documents(arguments: argparse.Namespace, folder: Path) -> Part:
    (corpus := folder / "corpus").mkdir(parents=True)
    characters = write_corpus(corpus, arguments.documents)
    with serving(Behaviour(0.0, arguments.limit, pairs=True)) as (url, _):
        found = apart(stream, corpus, folder / "run", url, arguments.limit)
    row = {
        "documents": f"{arguments.documents:,}", "characters": f"{characters:,}", "seconds": f"{found.seconds:.0f}",
        "documents/s": f"{arguments.documents / found.seconds:.0f}",
        "CPU ms a document": f"{found.cpu / arguments.documents * 1000:.2f}",
        "MiB before": f"{found.begin:.0f}", "peak MiB": f"{found.peak:.0f}", "pairs kept": f"{found.pairs:,}",
    }  # fmt: skip
    wrong = [] if found.pairs > 0.9 * arguments.documents else [f"documents: {found.pairs} pairs kept"]
    return Part("A large corpus", [row], {}, [Target("documents: peak MiB", found.peak, 1024, at_most=True)], wrong)


PARTS = {
    "calls": measure_calls, "storm": measure_storm, "journal": measure_journal, "documents": measure_documents,
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds before each answer")
    parser.add_argument("--limit", type=int, default=64, help="calls at once")
    parser.add_argument(
        "--storm", type=int, nargs=3, default=[4, 15, 40], metavar=("BEFORE", "STORM", "AFTER"),
        help="seconds of calls before the storm, of the storm, and after it",
    )  # fmt: skip
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--journal-seconds", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, help="where journals are written: a real disk, not memory")
    parser.add_argument("--output", type=Path, help="also write the JSON here, one file for each part")
    parser.add_argument("--smoke", action="store_true", help="small sizes: does it run at all?")
    arguments = parser.parse_args()
    if arguments.smoke:
        vars(arguments).update(SMOKE)
    if (
        min(
            arguments.calls,
            arguments.limit,
            arguments.delay,
            *arguments.storm,
            arguments.journal_seconds,
            arguments.documents,
        )
        <= 0
    ):
        parser.error("numbers must be above 0")
    return arguments


def main() -> None:
    arguments = parse()
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # openai would ask a proxy for our own machine
    facts = {"delay": arguments.delay, "limit": arguments.limit}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        run_parts(arguments.part, lambda name: PARTS[name](arguments, Path(folder) / name), facts, arguments.output)


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(f"error: {error}")

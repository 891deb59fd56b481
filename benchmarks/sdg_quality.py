"""Questions of the embedded model alone: does training on them help, and what does each filter contribute?

    python benchmarks/sdg_quality.py --data BEIR_DIR/covid_faq [--seeds 3] [--folder KEEP] [--equal] [--smoke]

sdg, prep, finetune and eval run through the command line with `-c demo`. The tuned models are judged on the people's
questions of the folder (its test qrels) over its whole corpus. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from parts import Target
from pipeline_eval.statistics import compare
from rows import markdown, show
from sdg_quality_flow import METRICS, Flow, cut, trained_on
from sdg_quality_variants import CHECKS, DEDUP, RAW, write_variants

from pipeline.errors import PipelineError

BASE, FULL = "base", "+ round trip"
RECORDS = {RAW: RAW, CHECKS: CHECKS, DEDUP: DEDUP, FULL: DEDUP}
"""Variant -> the records it begins with; each has all filters of those before it."""
NO_ROUND_TRIP = "round_trip_top_k=null"
WANTED = {"covid_faq": 0.580}
"""Data set -> nDCG@10 that the full flow is to reach."""
SMOKE_KEYS = ("max_steps=1", "global_batch_size=4", "val_every_steps=1", "bootstrap_samples=100")
SMOKE_DOCUMENTS, SMOKE_PAIRS = 16, 1


@dataclass(frozen=True)
class Variant:
    """One row of a table. `runs`: [seeds, questions, METRICS]; rows and steps are those of each seed."""

    name: str
    runs: np.ndarray
    questions: int | None = None
    rows: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()

    @property
    def scores(self) -> np.ndarray:
        """Each question's mean over the seeds, [questions, METRICS]."""
        return self.runs.mean(0)


def measure(flow: Flow, records: dict[str, tuple[Path, int]], arguments: argparse.Namespace) -> list[Variant]:
    """BM25 and the untrained model, then every variant: trained once for each seed with the same recipe."""
    base = flow.folder / BASE
    flow.measure_base(base)
    untrained = [Variant(name, flow.scores(base, name)[None]) for name in ("bm25", BASE)]
    return untrained + [_variant(flow, "full", name, records, arguments.seeds) for name in arguments.variants]


def measure_equal(
    flow: Flow, records: dict[str, tuple[Path, int]], full: list[Variant], seeds: int
) -> tuple[int, list[Variant]]:
    """(rows, every variant with as many training rows as the smallest one has); these are drawn by the seed."""
    least = min(min(item.rows) for item in full if item.rows)
    cap = f"max_train_samples={least}"
    return least, [_variant(flow, "equal", item.name, records, seeds, cap) if item.rows else item for item in full]


def _variant(
    flow: Flow, table: str, name: str, records: dict[str, tuple[Path, int]], seeds: int, *keys: str
) -> Variant:
    source, questions = records[RECORDS[name]]
    more = keys if name == FULL else (*keys, NO_ROUND_TRIP)
    runs = [flow.folder / table / name.strip("+ ").replace(" ", "_") / str(seed) for seed in range(seeds)]
    for seed, run in enumerate(runs):
        flow.tune(run, source, seed, *more)
    rows, steps = zip(*map(trained_on, runs), strict=True)
    return Variant(name, np.stack([flow.scores(run, "finetuned") for run in runs]), questions, rows, steps)


def lines(variants: list[Variant]) -> list[dict[str, object]]:
    """The table: means, and paired differences in the first metric to base and to the variant before."""
    base = next(item for item in variants if item.name == BASE)
    rows: list[dict[str, object]] = []
    before: Variant | None = None
    for item in variants:
        cells: dict[str, object] = {
            "questions": item.name, "written": item.questions or "", "training rows": _span(item.rows),
            "steps": _span(item.steps),
        }  # fmt: skip
        seeds = item.runs[:, :, 0].mean(1)
        cells |= {metric: f"{value:.4f}" for metric, value in zip(METRICS, item.scores.mean(0), strict=True)}
        cells["of the seeds"] = f"{seeds.min():.4f}-{seeds.max():.4f}" if item.rows else ""
        cells["against base"] = _difference(base, item) if item is not base else ""
        cells["against the row before"] = _difference(before, item) if before else ""
        before = item if item.rows or item is base else None
        rows.append(cells)
    return rows


def _difference(a: Variant, b: Variant) -> str:
    found = compare(a.scores[:, :1], b.scores[:, :1])[0]
    low, high = found.ci95
    return f"{found.delta:+.4f} [{low:+.4f}, {high:+.4f}] p={found.p:.3f}"


def _span(values: tuple[int, ...]) -> str:
    low, high = min(values, default=0), max(values, default=0)
    return "" if not values else str(low) if low == high else f"{low}-{high}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a BEIR folder with test qrels")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each variant")
    parser.add_argument("--num-pairs", type=int, default=6, help="questions asked for about a passage")
    parser.add_argument("--reuse", type=Path, help="output of a finished sdg run over this corpus (chunking=none)")
    parser.add_argument("--folder", type=Path, help="keep everything here: the same command goes on where it stopped")
    parser.add_argument("--equal", action="store_true", help="also a table with equally many training rows")
    parser.add_argument("--variants", nargs="+", choices=RECORDS, default=list(RECORDS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys of prep, finetune and eval")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    parser.add_argument("--smoke", action="store_true", help=f"{SMOKE_DOCUMENTS} documents, only `raw`, 1 step")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.seeds, arguments.num_pairs, arguments.variants = 1, SMOKE_PAIRS, [RAW]
        arguments.set = [*SMOKE_KEYS, *arguments.set]
    arguments.variants = [
        name for name in RECORDS if name in arguments.variants
    ]  # each is compared with the one before
    if min(arguments.seeds, arguments.num_pairs) < 1:
        parser.error("numbers must be above 0")
    return arguments


def tell(flow: Flow, arguments: argparse.Namespace) -> None:
    """Generate, measure, print."""
    generated = arguments.reuse.resolve() if arguments.reuse else flow.generate()
    records = write_variants(generated, flow.folder / "records")
    facts = {
        "data": flow.data.name, "seeds": arguments.seeds, "num_pairs": flow.num_pairs, "set": arguments.set,
        "reused": bool(arguments.reuse),
    }  # fmt: skip
    full = measure(flow, records, arguments)
    show("Questions of the embedded model, filter by filter", lines(full), facts, arguments.output)
    if arguments.equal:
        least, equal = measure_equal(flow, records, full, arguments.seeds)
        output = arguments.output
        place = output.with_stem(f"{output.stem}-equal") if output else None
        show("The same with equally many training rows", lines(equal), {**facts, "rows": least}, place)
    if flow.data.name in WANTED and full[-1].name == FULL and not arguments.smoke:
        target = Target("nDCG@10 of the whole flow", float(full[-1].scores[:, 0].mean()), WANTED[flow.data.name])
        print(f"\n## Targets\n\n{markdown([target.line()])}")


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.folder or Path(scratch)).resolve()
        data = arguments.data.resolve()
        if arguments.smoke:
            data = cut(data, folder / "cut", SMOKE_DOCUMENTS)
        tell(Flow(data, folder, arguments.num_pairs, tuple(arguments.set)), arguments)


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(f"error: {error}")

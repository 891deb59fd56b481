"""The eval stage: is the tuned model better, on which questions, and how sure is that?"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.records.beir import TestSet
from pipeline.records.results import SYSTEMS
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.eval import EmbedEvalConfig
from pipeline_eval import outcome, report
from pipeline_eval.drift import Deltas, metric_deltas
from pipeline_eval.identity import System
from pipeline_eval.judge import compare_systems, headline_metrics, pick
from pipeline_eval.ledger import KEPT_RANKS, Ledger
from pipeline_eval.systems import SystemMaker
from pipeline_eval.test_sets import load_test_sets


def main(config: EmbedEvalConfig, run: StageRun) -> StageResult:
    """Measure the asked systems on every test set, compare them question by question, and say what came out."""
    k_values = sorted(set(config.k_values))
    maker = SystemMaker(config, run.command_line, run.folder, f"pipeline embed deploy{run.config_hint} detach=true")
    asked = maker.asked()
    nim = maker.nim() if "nim" in asked else None
    if nim:
        nim.client.connect()  # before any long work
    test_sets = load_test_sets(
        Path(config.eval_data_path),
        config.eval_data_name,
        {name: Path(path).expanduser() for name, path in config.question_sets.items()},
        Path(config.corpus_dir),
        Path(config.question_sets_corpus) if config.question_sets_corpus else None,
    )
    ledger = Ledger(run.folder, test_sets, k_values)
    diagnostics = ledger.earlier_metadata.get("nim_diagnostics")

    for name in SYSTEMS:
        if nim and name == "nim":
            measure(nim, test_sets, ledger)
            diagnostics = nim.client.diagnostics
        elif name in asked:
            system = maker.make(name)
            measure(system, ledger.reuse(name, system.identity), ledger)
        elif identity := maker.identity_of(name):
            ledger.reuse(name, identity)  # not asked for now: earlier numbers stay while they hold
    ledger.drop_the_rest()

    results = ledger.results
    results.comparisons = [found for item in test_sets for found in _compare(item.name, ledger, config)]
    deltas = _drift(ledger, config)
    results.metadata = outcome.metadata(config, k_values, ledger, deltas, diagnostics)
    saved = ledger.save()
    if nim and not deltas:
        run.log.warning("the served model has no checkpoint to be compared with: measure the tuned model too")
    headline = headline_metrics(k_values)
    _show(ledger, deltas, headline)
    return StageResult(
        outputs=[saved, *ledger.score_files()],
        counts={item.name: {"questions": len(item.queries), "passages": len(item.corpus)} for item in test_sets},
        metrics=outcome.main_numbers(ledger, headline),
        headline=outcome.headline_rows(ledger, headline[0]),
        next_command=outcome.next_command(run, ledger),
        failure=outcome.failure(config, ledger, deltas, headline),
        effective=outcome.standing_toggles(ledger) if nim else {},
    )


def measure(system: System, test_sets: list[TestSet], ledger: Ledger) -> None:
    """Rank every question of these test sets; a corpus that several of them share is read once."""
    depth = max(*ledger.k_values, KEPT_RANKS)
    for corpus in {id(item.corpus): item.corpus for item in test_sets}.values():
        begin = time.monotonic()
        with system.open(corpus) as index:
            opened = time.monotonic() - begin
            for item in (item for item in test_sets if item.corpus is corpus):
                begin = time.monotonic()
                ranking = index.search(item.queries, depth)
                ledger.record(system.name, item, system.identity, ranking, opened + time.monotonic() - begin)


def _compare(test_set: str, ledger: Ledger, config: EmbedEvalConfig) -> list[dict[str, Any]]:
    systems = ledger.results.systems(test_set)
    scores = {system: ledger.scores(test_set, system) for system in systems}
    metrics = ledger.results.measurements[test_set][systems[0]]
    return compare_systems(test_set, scores, metrics, config.bootstrap_samples, config.seed)


def _drift(ledger: Ledger, config: EmbedEvalConfig) -> dict[str, Deltas]:
    """Test set -> differences between checkpoint and served model, where both are known."""
    return {
        name: metric_deltas(
            systems["finetuned"], systems["nim"], config.nim_metric_tolerance, config.nim_metric_low_k_tolerance
        )
        for name, systems in ledger.results.measurements.items()
        if "finetuned" in systems and "nim" in systems
    }


def _show(ledger: Ledger, deltas: dict[str, Deltas], headline: list[str]) -> None:
    """Tables and sentences on standard output; the main and the human-style sets apart."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    results = ledger.results
    for item in ledger.test_sets:
        kind = "main test set" if item.name == results.main else "human-style questions"
        console.print(report.comparison_table(results, item.name, kind, len(item.queries)))
        if item.name in deltas:
            console.print(report.drift_table(deltas[item.name], item.name))
    for item in ledger.test_sets:
        for a, b in (("base", "finetuned"), ("bm25", "finetuned")):
            found = pick(results.comparisons, item.name, a, b, headline[0])
            if found:
                console.print(report.sentence(results, found), markup=False, highlight=False, soft_wrap=True)
    sys.stdout.flush()


def cli() -> None:
    run_stage("eval", main)


if __name__ == "__main__":
    cli()

"""The eval stage: is the tuned model better, on which questions, and how sure is that?"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Console

from pipeline.errors import PipelineError
from pipeline.records.results import is_served
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.eval import EvalConfig
from pipeline_eval import outcome, report
from pipeline_eval.bench import Bench
from pipeline_eval.breakdown import Breakdown, explain
from pipeline_eval.breakdown_page import console_lines, write_breakdowns
from pipeline_eval.cache import VectorCache
from pipeline_eval.crew import Crew
from pipeline_eval.drift import metric_deltas
from pipeline_eval.families import EvalFamily, family_of
from pipeline_eval.follow import follow
from pipeline_eval.judge import compare_systems, headline_metrics, pick
from pipeline_eval.ledger import Ledger
from pipeline_eval.served import Served
from pipeline_eval.systems import SystemMaker
from pipeline_eval.test_sets import kind_of, load_test_sets


def main(config: EvalConfig, run: StageRun) -> StageResult:
    """Measure the asked systems on every test set, compare them question by question, and say what came out."""
    crew = Crew.join(config.dist_timeout_minutes, config.device)
    try:
        family = family_of(config)
        start_hint = f"pipeline {run.family.name} deploy{run.config_hint} detach=true"
        maker = family.systems(config, run.command_line, run.folder, start_hint, crew, run.explicit)
        if crew.leads:
            result = evaluate(config, run, family, maker, crew)
            crew.give(None)
            return result
        follow(crew, maker, load_test_sets(config))
        return StageResult([])
    finally:
        crew.leave()


def evaluate(config: EvalConfig, run: StageRun, family: EvalFamily, maker: SystemMaker, crew: Crew) -> StageResult:
    """The work of `main`. Other processes of `crew` help with what models compute; this one does all else."""
    k_values = sorted(set(config.k_values))
    cache = VectorCache(config.cache_embeddings_dir, config.cache_max_gb)
    asked = maker.asked()
    services = {name: maker.make(name) for name in asked if is_served(name)}
    served = Served({name: service.client for name, service in services.items()})
    served.connect()
    test_sets = load_test_sets(config)
    ledger = Ledger(run.folder, test_sets, k_values)
    bench = Bench(maker, ledger, crew)
    names = maker.names(ledger.earlier_systems)
    family = family.with_more(names)

    for name in names:
        if name in served.working:
            with served.keep_failure(name):
                bench.measure(services[name], test_sets)
        elif name in served.failures:
            continue
        elif name in asked:
            system = maker.make(name)
            bench.measure(system, ledger.reuse(name, system.identity))
        elif identity := maker.identity_of(name):
            ledger.reuse(name, identity)  # not asked for now: earlier numbers stay while they hold
    diagnostics = served.diagnostics(ledger.earlier_metadata)
    if served.failures and not all(ledger.results.systems(item.name) for item in test_sets):
        ledger.results.metadata = outcome.metadata(config, ledger, {}, {}, diagnostics)
        ledger.save()
        raise PipelineError("; ".join(served.failures.values()))  # there is nothing else to show
    ledger.drop_the_rest()

    headline = headline_metrics(k_values)
    results = ledger.results
    results.comparisons = [found for item in test_sets for found in _compare(item.name, ledger, family, config)]
    drift = _drift(ledger, config)
    ceilings = bench.ceilings(test_sets)
    results.metadata = outcome.metadata(config, ledger, ceilings, drift, diagnostics)
    saved = ledger.save()
    breakdowns = _break_down(ledger, family, headline[0])
    pages = [
        page
        for item in test_sets
        for page in write_breakdowns(
            run.folder / item.name, breakdowns[item.name], _scores_by(headline[0], item.name, ledger), family.titles
        )
    ]
    cache.tidy()
    if any(name not in drift for name in served.working):
        run.log.warning("the served model has no checkpoint to be compared with: measure the tuned model too")
    _show(config, family, ledger, ceilings, drift, headline[0], breakdowns)
    return StageResult(
        outputs=[saved, *ledger.score_files(), *bench.files(test_sets), *pages],
        counts={item.name: {"questions": len(item.queries), "passages": len(item.corpus)} for item in test_sets},
        metrics=outcome.main_numbers(ledger, headline),
        headline=outcome.headline_rows(family, ledger, headline[0]),
        next_command=outcome.next_command(run, ledger),
        failure=outcome.failure(config, family, ledger, drift, headline, served),
        effective=outcome.standing_toggles(config, ledger) if services else {},
    )


def _compare(test_set: str, ledger: Ledger, family: EvalFamily, config: EvalConfig) -> list[dict[str, Any]]:
    systems = ledger.results.systems(test_set)
    scores = {system: ledger.scores(test_set, system) for system in systems}
    metrics = ledger.results.measurements[test_set][systems[0]]
    return compare_systems(test_set, scores, family.pairs, metrics, config.bootstrap_samples, config.seed)


def _scores_by(metric: str, test_set: str, ledger: Ledger) -> dict[str, np.ndarray]:
    """System -> its scores of every question."""
    scores = {system: ledger.scores(test_set, system) for system in ledger.results.systems(test_set)}
    return {system: np.array([item[metric] for item in found.values()]) for system, found in scores.items()}


def _drift(ledger: Ledger, config: EvalConfig) -> outcome.Drift:
    """Differences between checkpoint and each served model, where both are known."""
    tolerances = config.nim_metric_tolerance, config.nim_metric_low_k_tolerance
    found: outcome.Drift = {}
    for test_set, measured in ledger.results.measurements.items():
        served = [name for name in ledger.results.systems(test_set) if is_served(name)]
        for system in served if "finetuned" in measured else ():
            deltas = metric_deltas(measured["finetuned"], measured[system], *tolerances)
            found.setdefault(system, {})[test_set] = deltas
    return found


def _break_down(ledger: Ledger, family: EvalFamily, metric: str) -> dict[str, list[Breakdown]]:
    """Test set -> the pairs that decide, as far as both systems are there, by groups of questions."""
    found = {}
    for item in ledger.test_sets:
        measured = ledger.results.provenance[item.name]
        files = {system: ledger.folder / origin.scores for system, origin in measured.items()}
        pairs = [pair for pair in family.main if set(pair) <= set(files)]
        found[item.name] = [explain(item, files, a, b, metric) for a, b in pairs]
    return found


def _show(
    config: EvalConfig,
    family: EvalFamily,
    ledger: Ledger,
    ceilings: dict[str, dict[str, Any]],
    drift: outcome.Drift,
    metric: str,
    breakdowns: dict[str, list[Breakdown]],
) -> None:
    """Tables and sentences on standard output, each test set apart."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    results = ledger.results
    for item in ledger.test_sets:
        kind = kind_of(config, item.name)
        console.print(report.systems_table(family, results, item.name, kind, len(item.queries)))
        if table := report.comparison_table(family, results, item.name):
            console.print(table)
        for system, deltas in drift.items():
            if item.name in deltas:
                console.print(report.drift_table(family, deltas[item.name], item.name, system))
        for found in breakdowns[item.name][:1]:
            _say(console, console_lines(found, family.titles))
    for item in ledger.test_sets:
        _say(console, report.remarks(family, results, item.name, ceilings.get(item.name)))
    for item in ledger.test_sets:
        found = [pick(results.comparisons, item.name, a, b, metric) for a, b in family.said]
        _say(console, [report.sentence(family, results, comparison) for comparison in found if comparison])
    sys.stdout.flush()


def _say(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def cli() -> None:
    run_stage("eval", main)


if __name__ == "__main__":
    cli()

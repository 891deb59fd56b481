"""What a finished evaluation tells the manifest, the summary and the exit code."""

from __future__ import annotations

from typing import Any

from pipeline.records.results import SYSTEMS
from pipeline.run.stage import StageRun
from pipeline.schemas.eval import EmbedEvalConfig
from pipeline_eval import report
from pipeline_eval.drift import Deltas, drifted
from pipeline_eval.judge import pick
from pipeline_eval.ledger import Ledger


def metadata(
    config: EmbedEvalConfig,
    k_values: list[int],
    ledger: Ledger,
    deltas: dict[str, Deltas],
    diagnostics: dict[str, Any] | None,
) -> dict[str, Any]:
    """`_metadata` of the results. `diagnostics`: what the client of the served model saw, now or in an earlier run."""
    there = {system for systems in ledger.results.measurements.values() for system in systems}
    comparison = {
        "kind": "aggregate_behavioral_metric_drift",
        "model_identity_proof": False,
        "within_tolerance": not any(drifted(item) for item in deltas.values()),
        "fail_on_drift": config.fail_on_nim_metric_drift,
        "deltas": deltas.get(ledger.results.main),
        "test_sets": {name: item for name, item in deltas.items() if name != ledger.results.main},
    }
    served = diagnostics if "nim" in there else None
    return {
        "eval_data_path": config.eval_data_path,
        "k_values": k_values,
        "base_model": config.base_model if "base" in there else None,
        "finetuned_model_path": config.finetuned_model_path if "finetuned" in there else None,
        "nim_url": served["url"] if served else None,
        "nim_model": served["requested_model"] if served else None,
        "nim_diagnostics": served,
        "nim_metric_comparison": comparison if deltas else None,
        "test_sets": {
            item.name: {
                "questions": len(item.queries),
                "passages": len(item.corpus),
                "digest": ledger.digests[item.name],
            }
            for item in ledger.test_sets
        },
    }


def main_numbers(ledger: Ledger, headline: list[str]) -> dict[str, Any]:
    """Test set -> system -> headline metrics."""
    results = ledger.results
    return {
        item.name: {
            system: {metric: results.value(item.name, system, metric) for metric in headline}
            for system in results.systems(item.name)
        }
        for item in ledger.test_sets
    }


def headline_rows(ledger: Ledger, metric: str) -> list[tuple[str, str]]:
    """One line of the summary for each test set."""
    results, rows = ledger.results, []
    for item in ledger.test_sets:
        values = [f"{system} {results.value(item.name, system, metric):.4f}" for system in results.systems(item.name)]
        found = pick(results.comparisons, item.name, "base", "finetuned", metric)
        verdict = f"; tuned: {found['verdict']} (p {report.p_text(found['p'])})" if found else ""
        rows.append((f"{item.name} {metric}", ", ".join(values) + verdict))
    return rows


def failure(config: EmbedEvalConfig, ledger: Ledger, deltas: dict[str, Deltas], headline: list[str]) -> str | None:
    """What the gates found, after everything was saved."""
    found = []
    if config.fail_on_regression:
        worse = [
            f"{item['metric']} on {item['test_set']} ({item['delta']:+.4f})"
            for item in ledger.results.comparisons
            if (item["a"], item["b"], item["verdict"]) == ("base", "finetuned", "worse") and item["metric"] in headline
        ]
        if worse:
            found.append(f"the tuned model is worse than the base: {', '.join(worse)} (fail_on_regression)")
    if config.fail_on_nim_metric_drift:
        outside = [f"{metric} on {name}" for name, item in deltas.items() for metric in drifted(item)]
        if not deltas:
            found.append("the served model has no checkpoint to be compared with (fail_on_nim_metric_drift)")
        if outside:
            found.append(f"the served model drifts from its checkpoint: {', '.join(outside)}")
    return "; ".join(found) or None


def standing_toggles(ledger: Ledger) -> dict[str, bool]:
    """A run that only adds the served model leaves base, tuned and BM25 measured: the manifest says so."""
    return {
        f"eval_{system}": True
        for system in SYSTEMS
        if system != "nim" and all(system in ledger.results.systems(item.name) for item in ledger.test_sets)
    }


def next_command(run: StageRun, ledger: Ledger) -> str | None:
    """Nothing follows once the served model was measured."""
    there = ledger.results.systems(ledger.results.main)
    if "nim" in there:
        return None
    stage = "export" if "finetuned" in there else "finetune"
    return f"pipeline {run.family.name} {stage}{run.config_hint}"

"""What a finished evaluation tells the manifest, the summary and the exit code."""

from __future__ import annotations

from typing import Any

from pipeline.records.results import SYSTEMS, is_served
from pipeline.run.stage import StageRun
from pipeline.schemas.eval import EvalConfig
from pipeline_eval import report
from pipeline_eval.drift import Deltas, drifted
from pipeline_eval.families import EvalFamily
from pipeline_eval.judge import pick
from pipeline_eval.ledger import Ledger
from pipeline_eval.served import ENDPOINTS, SERVED, Served, called
from pipeline_eval.test_sets import kind_of

_MODEL_KEYS = {
    "base": "base_model",
    "finetuned": "finetuned_model_path",
    "retriever": "retrieval_model",
    "base_retriever": "base_retrieval_model",
    "reranked": "reranker_model",
}
"""System -> the key that names its model."""
Drift = dict[str, dict[str, Deltas]]
"""Served system -> test set -> differences to the checkpoint."""


def metadata(
    config: EvalConfig,
    ledger: Ledger,
    ceilings: dict[str, dict[str, Any]],
    drift: Drift,
    diagnostics: dict[str, dict[str, Any] | None],
) -> dict[str, Any]:
    """`_metadata` of the results. `diagnostics`: what the clients of services saw, now or in an earlier run."""
    there = {system for systems in ledger.results.measurements.values() for system in systems}
    services = {
        system: _of_service(config, ledger.results.main, drift.get(system, {}), known)
        for system, known in diagnostics.items()
        if known and (system in there or "error" in known)
    }
    return {
        "eval_data_path": config.eval_data_path,
        "k_values": ledger.k_values,
        **{
            key: _model_of(ledger, system) if system in there else None
            for system, key in _MODEL_KEYS.items()
            if hasattr(config, key)
        },
        **services.pop(SERVED, dict.fromkeys(_SERVICE_KEYS)),
        ENDPOINTS: services,
        "candidates": ceilings,
        "test_sets": {
            item.name: {
                "kind": kind_of(config, item.name),
                "questions": len(item.queries),
                "passages": len(item.corpus),
                "digest": ledger.digests[item.name],
            }
            for item in ledger.test_sets
        },
    }


_SERVICE_KEYS = ("nim_url", "nim_model", "nim_diagnostics", "nim_metric_comparison")


def _of_service(
    config: EvalConfig, main: str, deltas: dict[str, Deltas], diagnostics: dict[str, Any]
) -> dict[str, Any]:
    """What is known of one service, by `_SERVICE_KEYS`."""
    comparison = {
        "kind": "aggregate_behavioral_metric_drift",
        "model_identity_proof": False,
        "within_tolerance": not any(drifted(item) for item in deltas.values()),
        "fail_on_drift": config.fail_on_nim_metric_drift,
        "deltas": deltas.get(main),
        "test_sets": {name: item for name, item in deltas.items() if name != main},
    }
    known = (diagnostics["url"], diagnostics["requested_model"], diagnostics, comparison if deltas else None)
    return dict(zip(_SERVICE_KEYS, known, strict=True))


def _model_of(ledger: Ledger, system: str) -> str:
    """The model that was measured, which may be another than the one that the configuration names first."""
    return next(found[system].model for found in ledger.results.provenance.values() if system in found)


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


def headline_rows(family: EvalFamily, ledger: Ledger, metric: str) -> list[tuple[str, str]]:
    """One line of the summary for each test set."""
    results, rows = ledger.results, []
    for item in ledger.test_sets:
        said = [
            f"{family.titles[system]} {results.value(item.name, system, metric):.4f}"
            for system in results.systems(item.name)
        ]
        text = ", ".join(said)
        for (a, b), opponent in family.main.items():
            if found := pick(results.comparisons, item.name, a, b, metric):
                text += f"; tuned against {opponent}: {found['verdict']} (p {report.p_text(found['p'])})"
        rows.append((f"{item.name} {metric}", text))
    return rows


def failure(
    config: EvalConfig,
    family: EvalFamily,
    ledger: Ledger,
    drift: Drift,
    headline: list[str],
    served: Served,
) -> str | None:
    """What the gates found, after everything was saved; the services of this run alone decide about drift."""
    found = _regressions(config, family, ledger, headline) if config.fail_on_regression else []
    found += served.failures.values()
    for system in served.working if config.fail_on_nim_metric_drift else ():
        deltas = drift.get(system, {})
        outside = [f"{metric} on {name}" for name, item in deltas.items() for metric in drifted(item)]
        if not deltas:
            found.append(f"the {called(system)} has no checkpoint to be compared with (fail_on_nim_metric_drift)")
        if outside:
            found.append(f"the {called(system)} drifts from its checkpoint: {', '.join(outside)}")
    return "; ".join(found) or None


def _regressions(config: EvalConfig, family: EvalFamily, ledger: Ledger, headline: list[str]) -> list[str]:
    """On which test sets, guard sets too, the tuned model is worse than what it must not be worse than.

    A gate that saw nothing does not hold.
    """
    found, made = [], 0
    for pair, opponent in family.main.items():
        compared = [
            item for item in ledger.results.comparisons if (item["a"], item["b"]) == pair and item["metric"] in headline
        ]
        made += len(compared)
        worse = [
            f"{item['metric']} on {item['test_set']} ({kind_of(config, item['test_set'])}, {item['delta']:+.4f})"
            for item in compared
            if item["verdict"] == "worse"
        ]
        if worse:
            found.append(f"the tuned model is worse than {opponent}: {', '.join(worse)} (fail_on_regression)")
    if not made:
        found.append(f"the tuned model was not compared with {' or '.join(family.main.values())} (fail_on_regression)")
    return found


def standing_toggles(config: EvalConfig, ledger: Ledger) -> dict[str, bool]:
    """A run that only adds the served model leaves the other systems measured: the manifest says so."""
    return {
        f"eval_{system}": True
        for system in SYSTEMS
        if system != SERVED
        and hasattr(config, f"eval_{system}")
        and all(system in ledger.results.systems(item.name) for item in ledger.test_sets)
    }


def next_command(run: StageRun, ledger: Ledger) -> str | None:
    """Nothing follows once a served model was measured."""
    there = ledger.results.systems(ledger.results.main)
    if any(map(is_served, there)):
        return None
    stage = "export" if "finetuned" in there else "finetune"
    return f"pipeline {run.family.name} {stage}{run.config_hint}"

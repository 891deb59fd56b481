"""The results as tables and as plain sentences."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from pipeline.records.results import EvalResults, metric_names
from pipeline_eval.drift import Deltas
from pipeline_eval.judge import GROUPS, pick

_TITLES = {"bm25": "BM25", "base": "base", "finetuned": "tuned", "nim": "nim"}
_VERDICTS = {"better": "better", "worse": "worse", "indistinguishable": "no clear difference"}
_COLOURS = {"better": "green", "worse": "red", "indistinguishable": "default"}


def comparison_table(results: EvalResults, test_set: str, kind: str, queries: int) -> Table:
    """One test set: every measured system, and base -> tuned with interval, p-value and verdict."""
    systems = results.systems(test_set)
    compared = "base" in systems and "finetuned" in systems
    table = Table(title=f"{test_set}: {kind}, {queries} questions", title_justify="left", min_width=60)
    table.add_column("metric")
    for system in systems:
        table.add_column(_TITLES[system], justify="right")
    for heading in ("base -> tuned", "%", "95 % interval", "p", "tuned is") if compared else ():
        table.add_column(heading, justify="right", no_wrap=True)
    for metric in metric_names(results.measurements[test_set][systems[0]], GROUPS):
        cells = [f"{results.value(test_set, system, metric):.4f}" for system in systems]
        found = pick(results.comparisons, test_set, "base", "finetuned", metric)
        if found:
            base = results.value(test_set, "base", metric)
            colour = _COLOURS[found["verdict"]]
            cells += [
                f"{found['delta']:+.4f}",
                percent(found["delta"], base),
                _interval(found["ci95"]),
                p_text(found["p"]),
                f"[{colour}]{_VERDICTS[found['verdict']]}[/]",
            ]
        table.add_row(metric, *cells)
    return table


def drift_table(deltas: Deltas, test_set: str) -> Table:
    """Checkpoint against served model, each metric with its tolerance."""
    table = Table(title=f"{test_set}: tuned checkpoint -> served model", title_justify="left", min_width=60)
    table.add_column("metric")
    for heading in ("checkpoint", "nim", "difference", "tolerance", ""):
        table.add_column(heading, justify="right")
    for group in deltas.values():
        for name, item in group.items():
            mark = "[green]✓[/]" if item["within_tolerance"] else "[yellow]⚠[/]"
            table.add_row(
                name,
                f"{item['checkpoint']:.4f}",
                f"{item['nim']:.4f}",
                f"{item['delta']:+.4f}",
                f"{item['tolerance']:g}",
                mark,
            )
    return table


def sentence(results: EvalResults, comparison: dict[str, Any]) -> str:
    """One comparison as a sentence a person can quote."""
    a, b, test_set, metric = (comparison[name] for name in ("a", "b", "test_set", "metric"))
    before, after = results.value(test_set, a, metric), results.value(test_set, b, metric)
    verdict = {
        "better": "is better than",
        "worse": "is worse than",
        "indistinguishable": "is not clearly different from",
    }[comparison["verdict"]]
    low, high = comparison["ci95"]
    return (
        f"{_TITLES[b]} {verdict} {_TITLES[a]} on {test_set}: {metric} {before:.3f} -> {after:.3f} "
        f"({percent(comparison['delta'], before)}), 95 % interval [{low:+.3f}, {high:+.3f}], "
        f"{_p_phrase(comparison['p'])}, {comparison['queries']} questions"
    )


def percent(delta: float, before: float) -> str:
    return f"{100 * delta / before:+.1f} %" if before else "-"


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _p_phrase(p: float) -> str:
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def _interval(bounds: list[float]) -> str:
    # rich reads "[...]" as markup unless the bracket is escaped
    return f"\\[{bounds[0]:+.4f}, {bounds[1]:+.4f}]"

"""The results as tables and as plain sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from pipeline.records.results import EvalResults, Facts, metric_names
from pipeline_eval.drift import Deltas
from pipeline_eval.families import EvalFamily
from pipeline_eval.judge import GROUPS, pick
from pipeline_eval.served import called

_VERDICTS = {"better": "better", "worse": "worse", "indistinguishable": "no clear difference"}
_COLOURS = {"better": "green", "worse": "red", "indistinguishable": "default"}


def systems_table(family: EvalFamily, results: EvalResults, test_set: str, kind: str, queries: int) -> Table:
    """One test set: a row for every measured system, with what it costs and what one must know of it."""
    systems = results.systems(test_set)
    facts = {system: results.provenance[test_set][system].facts for system in systems}
    metrics = metric_names(results.measurements[test_set][systems[0]], GROUPS)
    noted = any(item.note for item in facts.values())
    sizes = {item.vector_bytes for item in facts.values()} - {None}
    costs = ("ms/query", "MB", *(("bytes/vector",) if len(sizes) > 1 else ()))
    table = Table(title=f"{test_set}: {kind}, {queries} questions", title_justify="left", min_width=60)
    table.add_column("system", no_wrap=True)
    for heading in (*metrics, *costs):
        table.add_column(heading, justify="right")
    if noted:
        table.add_column("")
    for system in systems:
        values = [f"{results.value(test_set, system, metric):.4f}" for metric in metrics]
        note = [facts[system].note or ""] if noted else []
        table.add_row(family.titles[system], *values, *_costs(facts[system])[: len(costs)], *note)
    return table


def comparison_table(family: EvalFamily, results: EvalResults, test_set: str) -> Table | None:
    """The family's headline pair, metric by metric, with interval, p-value and verdict; None if one is missing."""
    a, b = family.headline
    systems = results.systems(test_set)
    if a not in systems or b not in systems:
        return None
    title = f"{test_set}: {family.titles[a]} -> {family.titles[b]}"
    table = Table(title=title, title_justify="left", min_width=60)
    table.add_column("metric")
    for heading in (family.titles[a], family.titles[b], "difference", "%", "95 % interval", "p", "tuned is"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric in metric_names(results.measurements[test_set][a], GROUPS):
        found = pick(results.comparisons, test_set, a, b, metric)
        if found:
            before, after = results.value(test_set, a, metric), results.value(test_set, b, metric)
            colour = _COLOURS[found["verdict"]]
            table.add_row(
                metric,
                f"{before:.4f}",
                f"{after:.4f}",
                f"{found['delta']:+.4f}",
                percent(found["delta"], before),
                _interval(found["ci95"]),
                p_text(found["p"]),
                f"[{colour}]{_VERDICTS[found['verdict']]}[/]",
            )
    return table


def drift_table(family: EvalFamily, deltas: Deltas, test_set: str, system: str) -> Table:
    """Checkpoint against a served model, each metric with its tolerance."""
    table = Table(title=f"{test_set}: tuned checkpoint -> {called(system)}", title_justify="left", min_width=60)
    table.add_column("metric")
    for heading in ("checkpoint", system, "difference", "tolerance", ""):
        table.add_column(heading, justify="right")
    for group in deltas.values():
        for name, item in group.items():
            within, outside = family.marks
            mark = f"[green]{within}[/]" if item["within_tolerance"] else f"[yellow]{outside}[/]"
            table.add_row(
                name,
                f"{item['checkpoint']:.4f}",
                f"{item['nim']:.4f}",
                f"{item['delta']:+.4f}",
                f"{item['tolerance']:g}",
                mark,
            )
    return table


def sentence(family: EvalFamily, results: EvalResults, comparison: dict[str, Any]) -> str:
    """One comparison as a sentence a person can quote."""
    a, b, test_set, metric = (comparison[name] for name in ("a", "b", "test_set", "metric"))
    before, after = results.value(test_set, a, metric), results.value(test_set, b, metric)
    verdict = {
        "better": "is better than",
        "worse": "is worse than",
        "indistinguishable": "is not clearly different from",
    }[comparison["verdict"]]
    low, high = comparison["ci95"]
    said = (
        f"{family.titles[b]} {verdict} {family.titles[a]} on {test_set}: {metric} {before:.3f} -> {after:.3f} "
        f"({percent(comparison['delta'], before)}), 95 % interval [{low:+.3f}, {high:+.3f}], "
        f"{_p_phrase(comparison['p'])}, {comparison['queries']} questions"
    )
    if comparison["verdict"] == "indistinguishable" and comparison["detectable"]:
        said += f" (this test set would show differences from {comparison['detectable']:.3f} on)"
    return said


def remarks(family: EvalFamily, results: EvalResults, test_set: str, ceiling: dict[str, Any] | None) -> Iterator[str]:
    """What limits the numbers of one test set: the candidates, and texts that were longer than a model reads."""
    if ceiling:
        yield (
            f"{test_set}: the first {ceiling['top_k']} passages of {family.titles[ceiling['system']]} hold "
            f"{100 * ceiling['recall']:.1f} % of the right ones; no reranker can find more"
        )
    for system in results.systems(test_set):
        facts = results.provenance[test_set][system].facts
        if facts.cut:
            yield (
                f"{test_set}: {family.titles[system]} read {facts.cut:,} of {facts.texts:,} texts only in part: "
                f"they have more than {facts.max_length} tokens"
            )


def percent(delta: float, before: float) -> str:
    return f"{100 * delta / before:+.1f} %" if before else "-"


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _p_phrase(p: float) -> str:
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def _costs(facts: Facts) -> tuple[str, str, str]:
    return (
        "" if facts.ms_per_query is None else f"{facts.ms_per_query:.1f}",
        "" if facts.size_mb is None else f"{facts.size_mb:.0f}",
        "" if facts.vector_bytes is None else str(facts.vector_bytes),
    )


def _interval(bounds: list[float]) -> str:
    # rich reads "[...]" as markup unless the bracket is escaped
    return f"\\[{bounds[0]:+.4f}, {bounds[1]:+.4f}]"

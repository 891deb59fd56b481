"""A breakdown for people: a Markdown page, lines for the console; and as JSON for programs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np

from pipeline.run.files import write_json, write_text
from pipeline_eval.breakdown import Breakdown, Extreme, Found, Row
from pipeline_eval.pictures import draw_breakdown, draw_systems

FILES = ("breakdown.json", "breakdown.md", "systems.png", "breakdown.png")
Titles = Mapping[str, str]
"""System -> its name for people; one that is missing is shown under its own name."""

_ON_CONSOLE = 3
_WIDTH = 100
"""Characters of a text on the console."""


def write_breakdowns(
    folder: Path, found: Sequence[Breakdown], scores: Mapping[str, np.ndarray], titles: Titles | None = None
) -> list[Path]:
    """Write all breakdowns of one test set into its folder. Without any, files of an earlier run are removed.

    Args:
        scores: system -> its scores by the metric of the breakdowns [questions], for the picture of all systems.
    """
    data, page, systems, groups = (folder / name for name in FILES)
    if not found or not found[0].rows:
        groups.unlink(missing_ok=True)
    if not found:
        for path in (data, page, systems):
            path.unlink(missing_ok=True)
        return []
    name, metric, known = found[0].test_set, found[0].metric, titles or {}
    named = {_title(system, known): values for system, values in scores.items()}
    pictures = [draw_systems(systems, named, f"{name}: {metric} of every system", metric)]
    if found[0].rows:
        pictures.append(draw_breakdown(groups, found, known))
    lines = [f"![{path.stem}]({path.name})\n" for path in pictures]
    lines += [line for item in found for line in _page(item, known)]
    return [write_json(data, [asdict(item) for item in found]), write_text(page, "\n".join(lines)), *pictures]


def console_lines(found: Breakdown, titles: Titles | None = None) -> list[str]:
    """The table by type of question, where there is one, and the three largest gains and losses."""
    a, b = (_title(name, titles or {}) for name in (found.a, found.b))
    typed = [row for row in found.rows if row.by == "query_type"]
    lines = [f"{found.test_set}: {found.metric} by query_type, {a} -> {b}"] if typed else []
    width = max((len(row.group) for row in typed), default=0)
    for row in typed:
        lines.append(
            f"  {row.group:{width}}  {row.questions:5} questions  {row.a:.3f} -> {row.b:.3f}  {row.delta:+.3f}"
            f"  {_interval(row)}".rstrip()
        )
    for heading, extremes in (("gains", found.gains), ("losses", found.losses)):
        if extremes:
            lines.append(f"{found.test_set}: largest {heading} of {b} over {a} ({found.metric})")
        lines += [f"  {_change(item)}  {_one_line(item.text)[:_WIDTH]}" for item in extremes[:_ON_CONSOLE]]
    return lines


def _page(found: Breakdown, titles: Titles) -> Iterator[str]:
    a, b = (_escaped(_title(name, titles)) for name in (found.a, found.b))
    yield f"# {_escaped(found.test_set)}: {a} → {b}, {found.metric}\n"
    yield f"Means over {found.questions} questions. An interval (95 %) needs ten questions in the group. Of twenty"
    yield "intervals one leaves out 0 by luck: take them as hints, not as findings.\n"
    for by, rows in groupby(found.rows, key=lambda row: row.by):
        yield f"## By {by}\n"
        yield f"| {by} | questions | {a} | {b} | difference | 95 % interval |"
        yield "|---|---:|---:|---:|---:|---|"
        for row in rows:
            group = _escaped(row.group)
            yield f"| {group} | {row.questions} | {row.a:.4f} | {row.b:.4f} | {row.delta:+.4f} | {_interval(row)} |"
        yield ""
    for heading, extremes in (("gains", found.gains), ("losses", found.losses)):
        yield f"## Largest {heading}\n"
        if not extremes:
            yield "None.\n"
        for item in extremes:
            yield from _section(item, a, b)


def _section(item: Extreme, a: str, b: str) -> Iterator[str]:
    yield f"### {_escaped(item.text)}\n"
    yield f"Question `{item.question}`: {_change(item)}\n"
    yield f"- right: {_passage(item.relevant)}"
    for title, first in ((a, item.first_a), (b, item.first_b)):
        yield f"- first of {title}: {_first(first, item.relevant)}"
    yield ""


def _first(found: Found | None, relevant: Found) -> str:
    if found is None:
        return "nothing"
    if found == relevant:
        return "the right one"
    return f"{'right too: ' if found.grade > 0 else ''}{_passage(found)}"


def _passage(found: Found) -> str:
    source = f" ({', '.join(_escaped(name) for name in found.documents)})" if found.documents else ""
    return f"`{found.passage}`{source}: {_escaped(found.text)}"


def _change(item: Extreme) -> str:
    return f"{item.a:.3f} → {item.b:.3f} ({item.delta:+.3f})"


def _interval(row: Row) -> str:
    return "" if row.ci95 is None else f"[{row.ci95[0]:+.3f}, {row.ci95[1]:+.3f}]"


def _title(system: str, titles: Titles) -> str:
    return titles.get(system, system)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    """Text of others as plain text on one line of a Markdown page."""
    return re.sub(r"([\\`*_\[\]<>|~#&])", r"\\\1", _one_line(text))

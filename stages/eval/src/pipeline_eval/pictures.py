"""The pictures of a report: every system's mean, and where the difference between two systems comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.run.files import atomic_open
from pipeline_eval.breakdown import Breakdown, Row
from pipeline_eval.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILES = ("systems.png", "breakdown.png")
# Blue and vermilion of Okabe and Ito (https://jfly.uni-koeln.de/color/): told apart by every kind of colour vision.
_BETTER, _WORSE, _UNCLEAR = "#0072B2", "#D55E00", "#666666"
_LINE = 0.24
"""Inches of a row."""
_MOST = 24
"""Characters of a group's name; file names are long."""
_SAMPLES, _SEED = 2000, 42


def draw_systems(path: Path, scores: Mapping[str, np.ndarray], title: str, metric: str) -> Path:
    """Write a PNG with the mean of every system and its 95 % percentile-bootstrap interval.

    Args:
        scores: name for people -> one metric's scores, fp64 [questions]; the first stands at the top.
    """
    names = list(scores)
    table = np.stack([scores[name] for name in names], axis=1)
    means, (low, high) = table.mean(0), mean_interval(table, _SAMPLES, _SEED)

    def draw(axes: Axes) -> None:
        for line in range(len(names)):
            axes.plot([low[line], high[line]], [line, line], color=_BETTER, linewidth=2)
            axes.plot(means[line], line, "o", color=_BETTER)
            axes.annotate(f"{means[line]:.3f}", (means[line], line), (0, 5), textcoords="offset points", ha="center",
                          fontsize=8)  # fmt: skip
        axes.set_xlabel(f"{metric}, mean and 95 % interval", parse_math=False)
        axes.set_ylim(len(names) - 0.4, -0.8)

    return _write(path, 1.2 + 1.6 * _LINE * len(names), title, [draw], names)


def draw_breakdown(path: Path, found: Sequence[Breakdown], titles: Mapping[str, str]) -> Path:
    """Write a PNG with the difference in every group of questions, a panel for each pair of systems.

    A group of fewer than ten questions has a ring and no interval. `found`: breakdowns of one test set, at least one
    of which has rows.
    """
    labels, places = [], {}
    for by, rows in groupby(found[0].rows, key=lambda row: row.by):
        labels.append(f"by {by}")
        for row in rows:
            places[by, row.group] = len(labels)
            labels.append(f"{_short(row.group)} ({row.questions})")

    def panel(one: Breakdown) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            axes.axvline(0, color="black", linewidth=0.8)
            for row in one.rows:
                _mark(axes, row, places[row.by, row.group])
            a, b = (titles.get(name, name) for name in (one.a, one.b))
            axes.set_xlabel(f"{one.metric}: {b} less {a}", parse_math=False)
            axes.set_ylim(len(labels) - 0.4, -0.8)

        return draw

    title = f"{found[0].test_set}: difference by group (questions), 95 % intervals"
    return _write(path, 1.2 + _LINE * len(labels), title, [panel(one) for one in found], labels)


def _mark(axes: Axes, row: Row, line: int) -> None:
    clear = row.ci95 is not None and not row.ci95[0] <= 0 <= row.ci95[1]
    colour = (_BETTER if row.delta > 0 else _WORSE) if clear else _UNCLEAR
    if row.ci95 is not None:
        axes.plot(row.ci95, [line, line], color=colour, linewidth=2)
    axes.plot(row.delta, line, "o", color=colour, fillstyle="full" if row.ci95 is not None else "none")


def _write(
    path: Path, height: float, title: str, panels: Sequence[Callable[[Axes], None]], labels: Sequence[str]
) -> Path:
    """Draw panels side by side over one column of labels (the first at the top) and write the PNG.

    Needs no display. The same content gives the same bytes. The ground is white, so that it reads in a dark page too.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.style.context("default"):  # whatever the person's own settings are
        figure = Figure(figsize=(4 + 4 * len(panels), height), dpi=100, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        for axes, draw in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
            draw(axes)
            axes.grid(alpha=0.3)
            axes.set_yticks(range(len(labels)))
            axes.set_yticklabels(labels, parse_math=False)
        figure.suptitle(title, fontsize=11, parse_math=False)
        with atomic_open(path, "wb") as stream:
            figure.savefig(stream, format="png", metadata={"Software": None})
    return path


def _short(name: str) -> str:
    plain = " ".join(name.split())
    return plain if len(plain) <= _MOST else f"…{plain[1 - _MOST :]}"

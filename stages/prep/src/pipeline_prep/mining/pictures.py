"""`mining_similarity.png`: how far positives and negatives lie apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.run.files import atomic_open

_BINS = 60
# Blue and vermilion of Okabe and Ito (https://jfly.uni-koeln.de/color/): told apart by every kind of colour vision.
_GROUPS = (("positives", "#0072B2"), ("negatives", "#D55E00"))


def similarity_histogram(path: Path, positive_scores: np.ndarray, negative_scores: np.ndarray, title: str) -> Path:
    """Write a PNG with both distributions, each as shares of its own scores (fp32 [P] and [N]; may be empty).

    Needs no display. The same scores give the same bytes. The ground is white, so that it reads in a dark page too.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    finite = [scores[np.isfinite(scores)] for scores in (positive_scores, negative_scores)]
    together = np.concatenate(finite)
    edges = np.histogram_bin_edges(together, _BINS) if len(together) else np.linspace(0, 1, _BINS + 1)
    with matplotlib.style.context("default"):  # whatever the person's own settings are
        figure = Figure(figsize=(8, 4.5), dpi=120, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for (name, colour), scores in zip(_GROUPS, finite, strict=True):
            shares = np.histogram(scores, edges)[0] / max(len(scores), 1)
            median = f", median {np.median(scores):.3f}" if len(scores) else ""
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.35)
            axes.stairs(shares, edges, color=colour, linewidth=1.5, label=f"{len(scores):,} {name}{median}")
        axes.set(xlabel="similarity to the question", ylabel="share", ylim=(0, None))
        axes.set_title(title, parse_math=False)
        axes.legend()
        axes.grid(alpha=0.3)
        with atomic_open(path, "wb") as stream:
            figure.savefig(stream, format="png", metadata={"Software": None})
    return path

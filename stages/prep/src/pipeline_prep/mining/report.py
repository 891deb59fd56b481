"""`mining_report.json` and `mining_examples.md`: what was mined, how close it is, what each rule removed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from pipeline_prep.funnel import Funnel
from pipeline_prep.mining.task import SOURCES, Mined, MiningTask

_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
_SHARE_OF_HARDEST, _SHARE_OF_MEDIAN = 0.4, 0.3
_LONGEST_EXAMPLE = 600
"""Characters of a passage in the page to read; the report keeps it whole."""


def percentiles(scores: np.ndarray) -> dict[str, float]:
    """{"p0": lowest, …, "p50": median, …, "p100": highest} of the finite scores; empty without any."""
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return {}
    found = np.percentile(finite, _PERCENTILES)
    return {f"p{share}": round(float(value), 4) for share, value in zip(_PERCENTILES, found, strict=True)}


def mining_section(task: MiningTask, mined: Mined) -> dict[str, Any]:
    """Counts and similarities of one split, ready for JSON.

    `negatives_above_positive` is the share of negatives that score above the row's lowest positive.
    """
    counts = mined.negatives.counts
    above = mined.scores > lowest_positives(task, mined)[mined.negatives.row_numbers]
    by_source = np.bincount(mined.sources, minlength=len(SOURCES)).tolist()
    return {
        "rows": len(task),
        "negatives": len(mined.negatives.values),
        "negatives_by_source": dict(zip(SOURCES, by_source, strict=True)),
        "rows_short_of_negatives": int(mined.short.sum()),
        "rows_without_negatives": int((counts == 0).sum()),
        "left_out": {**mined.removed, "passages_kept_for_test": len(task.hidden)},
        "promoted_to_positive": len(mined.promoted.values),
        "negatives_above_positive": round(float(above.mean()), 4) if len(above) else 0.0,
        "positive_similarity": percentiles(mined.positive_scores),
        "negative_similarity": percentiles(mined.scores),
    }


def full_report(args: dict[str, Any], funnel: Funnel, train: dict[str, Any], val: dict[str, Any]) -> dict[str, Any]:
    """`train` and `val` are `mining_section`s."""
    return {"schema_version": 1, "args": args, "funnel": funnel.to_json(), "train": train, "val": val}


def lowest_positives(task: MiningTask, mined: Mined) -> np.ndarray:
    """fp32 [rows]: similarity of each row's least similar positive."""
    lowest = np.full(len(task), np.inf, np.float32)
    np.fmin.at(lowest, task.positives.row_numbers, mined.positive_scores)
    return lowest


def examples(task: MiningTask, mined: Mined, count: int = 10, seed: int = 42) -> list[dict[str, Any]]:
    """Up to `count` rows with negatives to read: some of the hardest, some from the middle, the rest drawn by `seed`.

    A row is the harder, the further its nearest negative comes up to (or beyond) its lowest positive.
    """
    best = np.full(len(task), -np.inf, np.float32)
    np.fmax.at(best, mined.negatives.row_numbers, mined.scores)
    rows = np.flatnonzero(np.isfinite(best))
    order = rows[np.argsort((lowest_positives(task, mined) - best)[rows], kind="stable")]
    picked = dict.fromkeys(order[: round(count * _SHARE_OF_HARDEST)].tolist(), "hardest")
    middle = round(count * _SHARE_OF_MEDIAN)
    start = max((len(order) - middle) // 2, 0)
    for row in order[start : start + middle].tolist():
        picked.setdefault(row, "median")
    for row in np.random.default_rng(seed).permutation(rows).tolist():
        if len(picked) >= count:
            break
        picked.setdefault(row, "random")
    return [_example(task, mined, row, kind) for row, kind in picked.items()]


def _example(task: MiningTask, mined: Mined, row: int, kind: str) -> dict[str, Any]:
    here, positives = (slice(*part.offsets[row : row + 2]) for part in (mined.negatives, task.positives))
    negatives = _passages(task, mined.negatives[row], mined.scores[here])
    for passage, source in zip(negatives, mined.sources[here].tolist(), strict=True):
        passage["source"] = SOURCES[source]
    return {
        "picked": kind,
        "question_id": task.question_ids[row],
        "question": task.questions[row],
        "answer": " / ".join(task.answers[row]),
        "positives": _passages(task, task.positives[row], mined.positive_scores[positives]),
        "negatives": negatives,
    }


def _passages(task: MiningTask, passages: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    """Ids, titles, texts and similarities; a score that is not finite, which JSON cannot hold, is None."""
    return [
        {
            "id": str(task.corpus["id"][passage].as_py()),
            "title": task.title(passage),
            "text": task.text(passage),
            "score": round(score, 4) if np.isfinite(score) else None,
        }
        for passage, score in zip(passages.tolist(), scores.tolist(), strict=True)
    ]


def examples_page(found: list[dict[str, Any]]) -> str:
    """`examples` as Markdown to read: question, answer, then each passage with its similarity."""
    lines = ["# Examples of mined negatives", "", "Does a negative answer its question? Then lower `hard_neg_margin`."]
    for number, item in enumerate(found, 1):
        lines += ["", f"## {number}. {_plain(item['question'])}", "", f"{item['picked']}, `{item['question_id']}`"]
        if item["answer"]:
            lines += ["", f"Answer: {_plain(item['answer'])}"]
        for kind in ("positive", "negative"):
            for passage in item[f"{kind}s"]:
                lines += ["", _heading(kind, passage), "", f"> {_plain(passage['text'])}"]
    return "\n".join(lines) + "\n"


def _heading(kind: str, passage: dict[str, Any]) -> str:
    score = "no score" if passage["score"] is None else f"{passage['score']:.4f}"
    source = f" from {passage['source']}" if "source" in passage else ""
    title = f" {_plain(passage['title'])}" if passage["title"] else ""
    return f"**{kind} {score}**{source} (`{passage['id']}`){title}"


def _plain(text: str) -> str:
    """One line, cut, in which nothing is a sign of Markdown or HTML."""
    line = " ".join(text.split())
    line = line if len(line) <= _LONGEST_EXAMPLE else line[:_LONGEST_EXAMPLE] + " …"
    return re.sub(r"([\\`*_#|<>\[\]~]|^[-+=])", r"\\\1", line)

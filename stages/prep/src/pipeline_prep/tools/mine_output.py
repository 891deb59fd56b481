"""What `data mine` writes and says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.records.sources.check import as_list
from pipeline.records.sources.ragged import Ragged
from pipeline.run.files import write_json, write_text
from pipeline_prep.mining.pictures import similarity_histogram
from pipeline_prep.mining.report import examples, examples_page, mining_section
from pipeline_prep.mining.task import Mined, MiningTask
from pipeline_prep.tools.training_json import Document

_OLD = ("pos_score", "neg_scores")
"""Fields in which older files kept scores; ours stand with each passage."""


def updated(document: Document, task: MiningTask, mined: Mined, args: dict[str, Any]) -> Document:
    """The same document with new negatives and scores; every other field and key stays."""
    ids = task.corpus["id"]
    rows = []
    for number, row in enumerate(document.rows):
        positives = dict(_scores(ids, task.positives, mined.positive_scores, number))
        negatives = _scores(ids, mined.negatives, mined.scores, number)
        found = _scores(ids, mined.promoted, mined.promoted_scores, number)
        new = {name: value for name, value in row.items() if name not in _OLD}
        new["pos_doc"] = [_scored(item, positives) for item in as_list(row["pos_doc"])]
        new["neg_doc"] = [{"id": name, "score": score} for name, score in negatives]
        if found:
            new["known_pos_ids"] = list(dict.fromkeys([*document.known(number), *(name for name, _ in found)]))
            if "original_question_id" not in row:  # an unrolled row keeps its one positive
                new["pos_doc"] += [{"id": name, "score": score} for name, score in found]
        rows.append(new)
    return replace(document, top={**document.top, "mining": {"args": args}}, rows=rows)


def _names(ids: Any, places: Any) -> list[str]:
    return [ids[int(place)].as_py() for place in places]


def _scores(ids: Any, passages: Ragged, scores: Any, row: int) -> list[tuple[str, float]]:
    """(id, score) of each passage of a row."""
    part = scores[passages.offsets[row] : passages.offsets[row + 1]].tolist()
    return list(zip(_names(ids, passages[row]), [round(score, 6) for score in part], strict=True))


def _scored(item: Any, scores: dict[str, float]) -> dict[str, Any]:
    entry = dict(item) if isinstance(item, dict) else {"id": item}
    return {**entry, "score": scores[str(entry["id"])]}


def write_report(
    output: Path, task: MiningTask, mined: Mined, args: dict[str, Any], recall: float | None, seed: int
) -> None:
    """`<output>.report.json`, `.examples.md` and `.similarity.png` beside the mined file."""
    read = examples(task, mined, seed=seed)
    report = {"schema_version": 1, "args": args, "mined": mining_section(task, mined), "ann_recall": recall}
    write_json(output.with_suffix(".report.json"), {**report, "examples": read})
    write_text(output.with_suffix(".examples.md"), examples_page(read))
    title = "Similarity to the questions"
    similarity_histogram(output.with_suffix(".similarity.png"), mined.positive_scores, mined.scores, title)


def tell(output: Path, task: MiningTask, mined: Mined) -> None:
    """A summary for people, on stderr."""
    from rich.console import Console
    from rich.table import Table

    section = mining_section(task, mined)
    table = Table(title="data mine: done", show_header=False, min_width=60, title_justify="left")
    short = section["rows_short_of_negatives"]
    table.add_row("hard negatives", f"{section['negatives']:,} for {section['rows']:,} rows; {short:,} short of them")
    for rule, count in section["left_out"].items():
        table.add_row(f"left out: {rule}", f"{count:,}")
    for kind in ("positive", "negative"):
        table.add_row(f"median {kind} similarity", str(section[f"{kind}_similarity"].get("p50", "-")))
    table.add_row("written to", str(output))
    table.add_row("to read", f"{output.stem}.examples.md, .report.json, .similarity.png beside it")
    table.add_row("next", f"pipeline data audit {output}; then finetune train_data_path={output}", style="bold")
    console = Console(stderr=True)
    (console if console.is_terminal else Console(stderr=True, width=120)).print(table)

"""Whole rankings that other systems build on, kept beside the results: every reranker gets the same candidates."""

from __future__ import annotations

from pathlib import Path

from pipeline.run.files import read_jsonl, write_jsonl
from pipeline_eval.metrics import Run


class Rankings:
    """`<test set>/<system>_candidates.jsonl`.

    The first line says what made the ranking, `{"fingerprint", "depth"}`; then one line for each question:
    `{"query_id", "candidates": [[passage id, score], …]}`, best first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, test_set: str, system: str) -> Path:
        return self._folder / test_set / f"{system}_candidates.jsonl"

    def keep(self, test_set: str, system: str, fingerprint: str, depth: int, run: Run) -> None:
        rows = ({"query_id": query, "candidates": list(ranking.items())} for query, ranking in run.items())
        write_jsonl(self.path(test_set, system), [{"fingerprint": fingerprint, "depth": depth}, *rows])

    def find(self, test_set: str, system: str, fingerprint: str, depth: int) -> Run | None:
        """The ranking with this fingerprint, `depth` passages or more of each question; None if it is not kept."""
        path = self.path(test_set, system)
        if not path.is_file():
            return None
        rows = (row for _, row in read_jsonl(path))
        head = next(rows, {})
        if head.get("fingerprint") != fingerprint or head["depth"] < depth:
            return None
        return {row["query_id"]: {passage: score for passage, score in row["candidates"]} for row in rows}

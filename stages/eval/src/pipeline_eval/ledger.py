"""Which numbers are still true. Freshness is per test set and system; every new number is saved at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.records.beir import TestSet
from pipeline.records.results import (
    EvalResults,
    Facts,
    Metrics,
    Provenance,
    QueryScores,
    read_query_scores,
    write_query_scores,
)
from pipeline.run.snapshot import sha256_of
from pipeline_eval.identity import Identity, digest_of
from pipeline_eval.metrics import Run, best_first, in_returned_order, mean_metrics, score_queries

logger = logging.getLogger("pipeline")
KEPT_RANKS = 10
"""Passages of each ranking that are kept beside a question's scores."""


class Ledger:
    """The results of a folder: those of earlier runs that still hold, and the new ones."""

    def __init__(self, folder: Path, test_sets: list[TestSet], k_values: list[int]) -> None:
        self.folder, self.test_sets, self.k_values = folder, test_sets, k_values
        self.digests = {item.name: digest_of(item) for item in test_sets}
        self.results = EvalResults(main=test_sets[0].name)
        self._earlier = EvalResults.load(folder)
        self._scores: dict[tuple[str, str], QueryScores] = {}

    @property
    def earlier_metadata(self) -> dict[str, Any]:
        return self._earlier.metadata if self._earlier else {}

    @property
    def earlier_systems(self) -> list[str]:
        """Systems of which an earlier run left numbers of any test set."""
        found = self._earlier.provenance.values() if self._earlier else ()
        return list(dict.fromkeys(system for systems in found for system in systems))

    def reuse(self, system: str, identity: Identity) -> list[TestSet]:
        """Take over the earlier numbers of a system that still hold; returns the test sets that must be measured."""
        open_sets = [item for item in self.test_sets if not self._take_over(system, item.name, identity)]
        reused = [item.name for item in self.test_sets if item not in open_sets]
        if reused:
            logger.info(f"{system}: reused for {', '.join(reused)} (same model, contract, test set and metrics)")
        return open_sets

    def _take_over(self, system: str, test_set: str, identity: Identity) -> bool:
        before = self._earlier
        if before is None or system not in before.provenance.get(test_set, {}):
            return False
        known = before.provenance[test_set][system]
        if known.fingerprint != self._fingerprint(test_set, identity):
            return False
        path = self.folder / known.scores
        if not path.is_file() or sha256_of(path) != known.scores_sha256:
            return False
        self.results.put(test_set, system, before.measurements[test_set][system], known)
        return True

    def record(
        self,
        system: str,
        test_set: TestSet,
        identity: Identity,
        run: Run,
        seconds: float,
        facts: Facts | None = None,
    ) -> Metrics:
        """Score a ranking and save everything known so far."""
        scores = score_queries(test_set.qrels, in_returned_order(run), self.k_values)
        metrics = mean_metrics(scores)
        file = Path(test_set.name) / f"{system}.jsonl"
        digest = write_query_scores(self.folder / file, scores, {query: _first(run.get(query, {})) for query in scores})
        self.results.put(
            test_set.name,
            system,
            metrics,
            Provenance(
                fingerprint=self._fingerprint(test_set.name, identity),
                model=identity.model,
                content=identity.content,
                contract=identity.contract,
                dtype=identity.dtype,
                measured=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(seconds, 2),
                scores=str(file),
                scores_sha256=digest,
                facts=facts or Facts(),
            ),
        )
        self.save()
        return metrics

    def save(self) -> Path:
        """Write the results so far, and those of earlier runs whose turn has not come: a run may die any time."""
        standing = EvalResults(self.results.main, comparisons=self.results.comparisons, metadata=self.results.metadata)
        for source in filter(None, (self._earlier, self.results)):
            for test_set, systems in source.measurements.items():
                for system, metrics in systems.items():
                    standing.put(test_set, system, metrics, source.provenance[test_set][system])
        return standing.save(self.folder)

    def drop_the_rest(self) -> None:
        """Let go of every earlier number that was not taken over or measured anew, with a line for each system."""
        before, self._earlier = self._earlier, None
        for test_set, systems in (before.provenance if before else {}).items():
            gone = [system for system in systems if system not in self.results.measurements.get(test_set, {})]
            if gone:
                logger.info(
                    f"earlier numbers of {', '.join(gone)} on {test_set} are dropped: model, contract, test set or "
                    "metrics changed, or they are not measured here any more"
                )
            for system in gone:
                (self.folder / systems[system].scores).unlink(missing_ok=True)

    def scores(self, test_set: str, system: str) -> QueryScores:
        """Per-question scores of a system, measured now or before."""
        key = test_set, system
        if key not in self._scores:
            self._scores[key] = read_query_scores(self.folder / self.results.provenance[test_set][system].scores)
        return self._scores[key]

    def score_files(self) -> Iterable[Path]:
        for systems in self.results.provenance.values():
            for item in systems.values():
                yield self.folder / item.scores

    def _fingerprint(self, test_set: str, identity: Identity) -> str:
        return identity.fingerprint(self.digests[test_set], self.k_values)


def _first(ranking: dict[str, float]) -> list[tuple[str, float]]:
    return best_first(ranking)[:KEPT_RANKS]

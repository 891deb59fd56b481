"""Measures one system after the other: those that search, and those that work on the rankings of others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.records.beir import TestSet
from pipeline.records.results import Facts
from pipeline_eval.crew import Crew, Order
from pipeline_eval.follow import is_shared, over_one_corpus
from pipeline_eval.identity import DerivedSystem, SearchSystem, System
from pipeline_eval.ledger import KEPT_RANKS, Ledger
from pipeline_eval.metrics import Run, mean_metrics, score_queries
from pipeline_eval.rankings import Rankings
from pipeline_eval.systems import SystemMaker
from pipeline_eval.variants import VariantSystem


@dataclass(frozen=True)
class _Ranked:
    """One system's ranking of one test set; the seconds it took in all, and those after the corpus was read."""

    test_set: TestSet
    run: Run
    seconds: float
    answering: float
    facts: Facts


class Bench:
    """Ranks, records, and keeps the rankings that other systems of this configuration build on."""

    def __init__(self, maker: SystemMaker, ledger: Ledger, crew: Crew) -> None:
        self._maker, self._ledger, self._crew = maker, ledger, crew
        self._rankings = Rankings(ledger.folder)
        self._depth = max(*ledger.k_values, KEPT_RANKS, maker.depth)

    def measure(self, system: System, test_sets: list[TestSet]) -> None:
        """Rank every question of these test sets; every result is saved at once."""
        if not test_sets:
            return
        for found in self._rank(system, test_sets):
            name = found.test_set.name
            before = sum(self._milliseconds(name, source) for source in getattr(system, "sources", ()))
            own = 1000 * found.answering / max(len(found.test_set.queries), 1)
            timed = not isinstance(system, VariantSystem)  # its vectors are made while they are searched
            facts = replace(found.facts, ms_per_query=round(before + own, 3) if timed else None)
            self._ledger.record(system.name, found.test_set, system.identity, found.run, found.seconds, facts)

    def ceilings(self, test_sets: list[TestSet]) -> dict[str, dict[str, object]]:
        """Test set -> {"system", "top_k", "recall"}: what the candidates hold, which no reranker can exceed."""
        if self._maker.candidates is None:
            return {}
        source, top_k = self._maker.candidates
        measured = [item for item in test_sets if source in self._ledger.results.systems(item.name)]
        runs = self._runs_of(source, measured)
        found: dict[str, dict[str, object]] = {}
        for item in measured:
            first = {query: dict(list(ranking.items())[:top_k]) for query, ranking in runs[item.name].items()}
            recall = mean_metrics(score_queries(item.qrels, first, [top_k]))["Recall"][f"Recall@{top_k}"]
            found[item.name] = {"system": source, "top_k": top_k, "recall": recall}
        return found

    def files(self, test_sets: list[TestSet]) -> list[Path]:
        """The kept rankings of these test sets."""
        paths = [self._rankings.path(item.name, source) for item in test_sets for source in self._maker.sources]
        return sorted(path for path in paths if path.is_file())

    def _rank(self, system: System, test_sets: list[TestSet]) -> Iterator[_Ranked]:
        """Rankings of a system; those that others build on are kept."""
        ranked = self._derive if isinstance(system, DerivedSystem) else self._search
        for found in ranked(system, test_sets):
            if system.name in self._maker.sources:
                mark = self._mark(system, found.test_set)
                self._rankings.keep(found.test_set.name, system.name, mark, self._depth, found.run)
            yield found

    def _search(self, system: SearchSystem, test_sets: list[TestSet]) -> Iterator[_Ranked]:
        """A corpus that several test sets share is read once."""
        if test_sets and is_shared(system):
            self._crew.give(Order(system.name, [item.name for item in test_sets], self._depth))
        for corpus, asked in over_one_corpus(test_sets):
            begin = time.monotonic()
            with system.open(corpus) as index:
                opened = time.monotonic() - begin
                for item in asked:
                    begin = time.monotonic()
                    run = index.search(item.queries, self._depth)
                    answering = time.monotonic() - begin
                    yield _Ranked(item, run, opened + answering, answering, index.facts)

    def _derive(self, system: DerivedSystem, test_sets: list[TestSet]) -> Iterator[_Ranked]:
        runs = [self._runs_of(source, test_sets) for source in system.sources]
        if is_shared(system):
            names = [item.name for item in test_sets]
            self._crew.give(Order(system.name, names, rankings=[runs[0][name] for name in names]))
        with system.start() as ranker:
            for item in test_sets:
                begin = time.monotonic()
                run = ranker.rank(item, [found[item.name] for found in runs])
                seconds = time.monotonic() - begin
                yield _Ranked(item, run, seconds, seconds, ranker.facts)

    def _runs_of(self, source: str, test_sets: list[TestSet]) -> dict[str, Run]:
        """Rankings by test set: those that were kept, and where a file is gone they are searched again."""
        system = self._maker.make(source)
        kept = {
            item.name: self._rankings.find(item.name, source, self._mark(system, item), self._maker.depth)
            for item in test_sets
        }
        missing = [item for item in test_sets if kept[item.name] is None]
        again = {found.test_set.name: found.run for found in self._rank(system, missing)} if missing else {}
        return {name: again[name] if run is None else run for name, run in kept.items()}

    def _mark(self, system: System, item: TestSet) -> str:
        return f"{system.identity.digest()}-{self._ledger.digests[item.name]}"

    def _milliseconds(self, test_set: str, source: str) -> float:
        measured = self._ledger.results.provenance[test_set].get(source)
        return (measured.facts.ms_per_query or 0.0) if measured else 0.0

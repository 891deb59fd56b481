"""What a process beside the first one does in an evaluation."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.records.beir import TestSet
from pipeline.records.passages import Passage
from pipeline_eval.crew import Crew
from pipeline_eval.dense import DenseSystem
from pipeline_eval.identity import System
from pipeline_eval.rerank import RerankSystem
from pipeline_eval.systems import SystemMaker
from pipeline_eval.variants import VariantSystem

_SHARED = (DenseSystem, VariantSystem, RerankSystem)


def is_shared(system: System) -> bool:
    """Whether processes share the work: on everything that a model computes here, and on nothing else."""
    return isinstance(system, _SHARED)


def over_one_corpus(test_sets: list[TestSet]) -> Iterator[tuple[dict[str, Passage], list[TestSet]]]:
    """Every corpus with the test sets over it, so that it is read once."""
    for corpus in {id(item.corpus): item.corpus for item in test_sets}.values():
        yield corpus, [item for item in test_sets if item.corpus is corpus]


def follow(crew: Crew, maker: SystemMaker, test_sets: list[TestSet]) -> None:
    """Do this process's share of every system that the first one starts, and keep nothing.

    Raises:
        PipelineError: this process or another one failed.
    """
    by_name = {item.name: item for item in test_sets}
    for order in crew.orders():
        with crew.telling_failure():
            system, items = maker.make(order.system), [by_name[name] for name in order.test_sets]
            if order.rankings is None:
                for corpus, asked in over_one_corpus(items):
                    with system.open(corpus) as index:
                        for item in asked:
                            index.search(item.queries, order.depth)
            else:
                with system.start() as ranker:
                    for item, ranking in zip(items, order.rankings, strict=True):
                        ranker.rank(item, [ranking])

"""What differs between the evaluation of an embedding model and of a reranker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pipeline.records.results import VARIANT, is_served, root_of
from pipeline.schemas.eval import EmbedEvalConfig, EvalConfig, RerankEvalConfig
from pipeline_eval.embed_systems import EmbedSystems
from pipeline_eval.rerank_systems import RerankSystems
from pipeline_eval.systems import SystemMaker

Pair = tuple[str, str]
"""Two systems, a and b: how much better is b?"""


@dataclass(frozen=True)
class EvalFamily:
    """One family's systems and questions.

    Attributes:
        pairs: what is compared, in this order.
        main: the pairs that decide, with a's name in a sentence; the first one gets the table.
        said: the pairs of which a sentence is shown.
        first_stage: whose candidates the rerankers get, if nothing else is asked for.
        rerankers: what is compared with it.
        titles: the systems' names for people.
        marks: how a metric of the served model is marked, within its tolerance and outside.
    """

    systems: type[SystemMaker]
    pairs: tuple[Pair, ...]
    main: dict[Pair, str]
    said: tuple[Pair, ...]
    first_stage: str
    rerankers: tuple[str, ...]
    titles: dict[str, str]
    marks: tuple[str, str]

    @property
    def headline(self) -> Pair:
        return next(iter(self.main))

    def with_more(self, systems: Iterable[str]) -> EvalFamily:
        """The same, with those of `systems` that are another form of a model's vectors, or one of several services.

        A form is compared with the full vectors, a service with the tuned model.
        """
        more = [system for system in systems if VARIANT in system]
        served = tuple(("finetuned", system) for system in more if is_served(system))
        forms = tuple((root_of(system), system) for system in more if not is_served(system))
        titles = {system: self.titles[root_of(system)] + system.removeprefix(root_of(system)) for system in more}
        return replace(
            self, pairs=(*self.pairs, *forms, *served), said=(*self.said, *forms), titles={**self.titles, **titles}
        )

    def over(self, source: str) -> EvalFamily:
        """The same with the candidates of `source`: what a reranker gains is told against that."""

        def moved(pair: Pair) -> Pair:
            return (source, pair[1]) if pair[0] == self.first_stage and pair[1] in self.rerankers else pair

        return replace(
            self,
            pairs=tuple(dict.fromkeys((*self.pairs, *map(moved, self.pairs)))),
            main={moved(pair): opponent for pair, opponent in self.main.items()},
            said=tuple(map(moved, self.said)),
        )


EMBED = EvalFamily(
    systems=EmbedSystems,
    pairs=(
        ("base", "finetuned"),
        ("bm25", "finetuned"),
        ("finetuned", "nim"),
        ("finetuned", "hybrid"),
        ("finetuned", "reranked"),
    ),
    main={("base", "finetuned"): "the base"},
    said=(("base", "finetuned"), ("bm25", "finetuned"), ("finetuned", "hybrid"), ("finetuned", "reranked")),
    first_stage="finetuned",
    rerankers=("reranked",),
    titles={
        "bm25": "BM25",
        "base": "base",
        "finetuned": "tuned",
        "hybrid": "hybrid",
        "reranked": "reranked",
        "nim": "nim",
    },
    marks=("✓", "⚠️"),
)
RERANK = EvalFamily(
    systems=RerankSystems,
    pairs=(
        ("retriever", "base"),
        ("retriever", "finetuned"),
        ("base", "finetuned"),
        ("finetuned", "nim"),
        ("base_retriever", "retriever"),
        ("base_retriever", "finetuned"),
        ("bm25", "finetuned"),
        ("retriever", "hybrid"),
        ("hybrid", "finetuned"),
    ),
    main={("retriever", "finetuned"): "the first stage alone", ("base", "finetuned"): "the base reranker"},
    said=(
        ("base_retriever", "retriever"),
        ("retriever", "base"),
        ("retriever", "finetuned"),
        ("base", "finetuned"),
        ("base_retriever", "finetuned"),
    ),
    first_stage="retriever",
    rerankers=("base", "finetuned"),
    titles={
        "bm25": "BM25",
        "base_retriever": "base retriever",
        "retriever": "retriever",
        "base": "base reranker",
        "finetuned": "tuned reranker",
        "hybrid": "hybrid",
        "nim": "nim",
    },
    marks=("ok", "MISMATCH"),
)
_FAMILIES: dict[type[EvalConfig], EvalFamily] = {EmbedEvalConfig: EMBED, RerankEvalConfig: RERANK}


def family_of(config: EvalConfig) -> EvalFamily:
    family = _FAMILIES[type(config)]
    return family.over("hybrid") if config.candidates == "hybrid" else family

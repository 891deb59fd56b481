"""What differs between the evaluation of an embedding model and of a reranker."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.records.results import VARIANT
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
        titles: the systems' names for people.
        marks: how a metric of the served model is marked, within its tolerance and outside.
    """

    systems: type[SystemMaker]
    pairs: tuple[Pair, ...]
    main: dict[Pair, str]
    said: tuple[Pair, ...]
    titles: dict[str, str]
    marks: tuple[str, str]

    @property
    def headline(self) -> Pair:
        return next(iter(self.main))

    def with_variants(self, forms: list[str]) -> EvalFamily:
        """The same, with other forms of the vectors of tuned and base model, each compared with the full one."""
        found = {(system, f"{system}{VARIANT}{form}"): form for system in ("finetuned", "base") for form in forms}
        titles = {variant: f"{self.titles[system]}{VARIANT}{form}" for (system, variant), form in found.items()}
        return replace(self, pairs=(*self.pairs, *found), said=(*self.said, *found), titles={**self.titles, **titles})


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
    return _FAMILIES[type(config)].with_variants(config.variants())

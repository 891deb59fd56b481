"""Which systems a run measures, each under its own encoding contract: what both families share."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pipeline.assets import model_content, resolve_model
from pipeline.checkpoints import find_model_folder
from pipeline.contract import EncodingContract, contract_of_model
from pipeline.errors import PipelineError
from pipeline.records.results import SYSTEMS, VARIANT, in_order, is_served
from pipeline.retrieval.encoder import LoadOptions
from pipeline.retrieval.hardware import encode_batch_tokens, pick_device, pick_dtype
from pipeline.retrieval.world import World
from pipeline.schemas.eval import EvalConfig
from pipeline_eval.bm25 import Bm25System
from pipeline_eval.fusion import DEPTH, HybridSystem
from pipeline_eval.identity import Identity, System
from pipeline_eval.loaded import Compute
from pipeline_eval.rerank import RerankSystem

logger = logging.getLogger("pipeline")
NO_CHECKPOINT = "none"
_TOGGLED = ("bm25", "base", "finetuned", "nim")


@dataclass
class SystemMaker(ABC):
    """Makes the systems a configuration describes; also those it does not ask for, to check their earlier numbers."""

    config: EvalConfig
    command_line: frozenset[str]
    scratch: Path
    start_hint: str
    world: World = World()
    explicit: frozenset[str] = frozenset()
    _made: dict[str, System] = field(default_factory=dict)

    @property
    @abstractmethod
    def dense(self) -> str:
        """The embedding model whose rankings are fused and put in a new order."""

    @property
    @abstractmethod
    def candidates(self) -> tuple[str, int] | None:
        """System and number of the passages that rerankers get, or None where there is no reranker."""

    @abstractmethod
    def service(self, system: str, name: str) -> System:
        """One of `services`; `name` is its name in `nim_urls`, empty for `nim_url`."""

    @abstractmethod
    def own_builders(self) -> dict[str, Callable[[], System]]:
        """Systems by name, beside BM25, the hybrid one and services, as far as the configuration describes them."""

    @abstractmethod
    def untoggled(self) -> list[str]:
        """Systems to measure that have no key of their own to turn them off."""

    @property
    def source(self) -> str:
        """The system whose passages rerankers put in order."""
        return "hybrid" if self.config.candidates == "hybrid" else self.dense

    @property
    def services(self) -> list[str]:
        """What `eval_nim` measures: `nim@NAME` of `nim_urls`, and `nim` where that is all or somebody set `nim_url`."""
        named = [f"nim{VARIANT}{name}" for name in self.config.nim_urls]
        return ["nim", *named] if not named or "nim_url" in self.explicit else named

    @property
    def sources(self) -> set[str]:
        """Systems whose rankings others build on."""
        hybrid = {"bm25", self.dense} if self.config.eval_hybrid else set()
        return hybrid | ({self.candidates[0]} if self.candidates else set())

    @property
    def depth(self) -> int:
        """Passages of each question that the systems above need from their sources."""
        return max(self._fused if self.config.eval_hybrid else 1, self.candidates[1] if self.candidates else 1)

    @property
    def _fused(self) -> int:
        """Passages of each ranking that are fused: as many as metrics and rerankers look at."""
        asked = self.candidates[1] if self.candidates and self.source == "hybrid" else 1
        return max(DEPTH, asked, *self.config.k_values)

    def asked(self) -> list[str]:
        """Names of the systems to measure, in their order, without a tuned model that is not there.

        Raises:
            PipelineError: nothing is left, or the gate on the served model has no checkpoint to compare with.
        """
        names = {name for name in _TOGGLED if getattr(self.config, f"eval_{name}")}
        if not names:
            toggles = ", ".join(f"eval_{name}" for name in _TOGGLED)
            raise PipelineError(f"nothing to measure: {toggles} are all false")
        if "finetuned" in names and not self.has_finetuned:
            self._skip_finetuned(names)
        if "nim" in names:
            names = names - {"nim"} | set(self.services)
        names |= set(self.untoggled())
        if self.config.eval_hybrid and {"bm25", self.dense} <= names:
            names.add("hybrid")
        return [name for name in self.names() if name in names]

    def names(self, earlier: Iterable[str] = ()) -> list[str]:
        """Every system that this configuration may measure, in the order in which it is measured.

        `earlier`: systems that were measured before; of these, services that are not asked for now stay.
        """
        services = [name for name in earlier if is_served(name)]
        found = in_order(dict.fromkeys([*SYSTEMS, *self.variants, *self.services, *services]))
        if self.source == "hybrid":  # before the rerankers that put it in order
            found.remove("hybrid")
            found.insert(found.index(self.dense) + 1, "hybrid")
        return found

    @property
    def variants(self) -> dict[str, str]:
        """System -> the form of the embedding model's vectors that it measures."""
        return {f"{self.dense}{VARIANT}{form}": form for form in self.config.variants()}

    def _skip_finetuned(self, names: set[str]) -> None:
        path = self.config.finetuned_model_path
        fix = "run finetune first, or set finetuned_model_path"
        names.remove("finetuned")
        if not names:
            raise PipelineError(f"the tuned model {path} does not exist, and nothing else is measured", fix=fix)
        for gate in ("fail_on_nim_metric_drift", "fail_on_regression"):
            if getattr(self.config, gate):
                raise PipelineError(f"{gate} is about {path}, which does not exist", fix=fix)
        logger.warning(f"the tuned model {path} does not exist and is skipped ({fix})")

    def make(self, name: str) -> System:
        """One system; the same object whenever it is asked for."""
        if name not in self._made:
            self._made[name] = self._builders[name]()
        return self._made[name]

    def identity_of(self, name: str) -> Identity | None:
        """What a system not asked for is now, or None where that cannot be told (then its earlier numbers fall)."""
        if is_served(name):
            name = "nim"  # every service stands for the same checkpoint, wherever it runs
        if name not in self._builders or (name == "finetuned" and not self.has_finetuned):
            return None
        try:
            return self.make(name).identity
        except PipelineError as error:
            logger.debug(f"{name} cannot be looked at: {error.message}")
            return None

    @cached_property
    def _builders(self) -> dict[str, Callable[[], System]]:
        services = {name: partial(self.service, name, name.partition(VARIANT)[2]) for name in ("nim", *self.services)}
        fixed = {"bm25": lambda: Bm25System(self.config.bm25_fields), "hybrid": self._hybrid}
        return {**fixed, **services, **self.own_builders()}

    def _hybrid(self) -> HybridSystem:
        return HybridSystem.of([self.make(self.dense), self.make("bm25")], self._fused)

    @property
    def has_finetuned(self) -> bool:
        return self.finetuned_folder.is_dir()

    @cached_property
    def finetuned_folder(self) -> Path:
        """The tuned model; a checkpoint, or a folder of checkpoints, stands for the model in it."""
        return Path(find_model_folder(resolve_model(self.config.finetuned_model_path))).expanduser()

    @cached_property
    def finetuned_content(self) -> str:
        return model_content(str(self.finetuned_folder), None) if self.has_finetuned else NO_CHECKPOINT

    def finetuned_contract(self, family: str, configured: EncodingContract) -> EncodingContract:
        """The contract saved beside the tuned model, else `configured` with a warning.

        Raises:
            PipelineError: the model is one of the other family.
        """
        own = contract_of_model(self.finetuned_folder)
        if own is None:
            logger.warning(
                f"{self.finetuned_folder} carries no encoding contract: lengths, pooling and the form of the texts are "
                "taken from the configuration"
            )
            return configured
        if own.family != family:
            raise PipelineError(
                f"finetuned_model_path: {self.finetuned_folder} was made as a model of the family {own.family}",
                fix=f"run `pipeline {own.family} eval`, or name a model of the family {family}",
            )
        return own

    def check_said(self, key: str, held: set[Any], source: str) -> None:
        """Refuse a key on the command line that says something else than the model's contract.

        Raises:
            PipelineError: `held` is not just the value that was said.
        """
        said = getattr(self.config, key)
        if key in self.command_line and held != {said}:
            values = " and ".join(str(value) for value in sorted(held))
            raise PipelineError(
                f"{key}={said} on the command line contradicts {values}, with which {source} was made",
                fix=f"leave {key} out: each model is measured under its own contract",
            )

    def reranker(
        self, name: str, reference: str, content: str, contract: EncodingContract, options: LoadOptions
    ) -> RerankSystem:
        """A cross-encoder over the candidates of the first stage, which this configuration has."""
        source, top_k = self.candidates  # type: ignore[misc]
        first = self.make(source).identity
        return RerankSystem(name, reference, content, contract, options, self.compute, source, first, top_k)

    def options(self, revision: str | None) -> LoadOptions:
        return LoadOptions(revision, self.config.trust_remote_code, self.config.attn_implementation)

    @property
    def safe_options(self) -> LoadOptions:
        """For a model beside the base, of which no commit is pinned: no code of its own is run."""
        return replace(self.options(None), trust_remote_code=False)

    @cached_property
    def compute(self) -> Compute:
        device = pick_device(self.config.device)
        return Compute(
            device,
            pick_dtype(self.config.precision, device),
            encode_batch_tokens(self.config.batch_tokens, device),
            self.config.corpus_chunk_size,
            Path(self.config.cache_embeddings_dir).expanduser(),
            self.world,
        )


def carried_contract(reference: str) -> EncodingContract | None:
    """The contract a local or embedded model carries; None for hub ids and for models that say nothing."""
    folder = Path(resolve_model(reference)).expanduser()
    return contract_of_model(folder) if folder.is_dir() else None

"""Which systems this run measures, each under its own encoding contract."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pipeline.assets import model_content, resolve_model
from pipeline.contract import EncodingContract, contract_of_model
from pipeline.errors import PipelineError
from pipeline.records.results import SYSTEMS
from pipeline.retrieval.encoder import LoadOptions
from pipeline.retrieval.hardware import pick_device, pick_dtype
from pipeline.schemas.eval import EmbedEvalConfig
from pipeline_eval.bm25 import Bm25System
from pipeline_eval.dense import Compute, DenseSystem
from pipeline_eval.identity import Identity, System
from pipeline_eval.nim import NimClient, NimSystem

logger = logging.getLogger("pipeline")
NO_CHECKPOINT = "none"


@dataclass
class SystemMaker:
    """Makes the systems a configuration describes; also those it does not ask for, to check their earlier numbers."""

    config: EmbedEvalConfig
    command_line: frozenset[str]
    scratch: Path
    start_hint: str

    def __post_init__(self) -> None:
        length = self.config.max_length
        if length is not None:
            self.config = replace(self.config, query_max_length=length, passage_max_length=length)

    def asked(self) -> list[str]:
        """Names of the systems to measure, without a tuned model that is not there.

        Raises:
            PipelineError: nothing is left, or the gate on the served model has no checkpoint to compare with.
        """
        names = [name for name in SYSTEMS if getattr(self.config, f"eval_{name}")]
        if "finetuned" in names and not self.has_finetuned:
            path = self.config.finetuned_model_path
            fix = "run finetune first, or set finetuned_model_path"
            names.remove("finetuned")
            if not names:
                raise PipelineError(f"the tuned model {path} does not exist, and nothing else is measured", fix=fix)
            if self.config.fail_on_nim_metric_drift:
                raise PipelineError(f"fail_on_nim_metric_drift compares with {path}, which does not exist", fix=fix)
            logger.warning(f"the tuned model {path} does not exist and is skipped ({fix})")
        if not names:
            raise PipelineError("nothing to measure: eval_base, eval_finetuned, eval_bm25 and eval_nim are all false")
        return names

    def make(self, name: str) -> System:
        return {"bm25": Bm25System, "base": self._base, "finetuned": self._finetuned, "nim": self.nim}[name]()

    def identity_of(self, name: str) -> Identity | None:
        """What a system not asked for is now, or None where that cannot be told (then its earlier numbers fall)."""
        if name == "finetuned" and not self.has_finetuned:
            return None
        try:
            return self.make(name).identity
        except PipelineError as error:
            logger.debug(f"{name} cannot be looked at: {error.message}")
            return None

    def nim(self) -> NimSystem:
        config = self.config
        client = NimClient(
            config.nim_url, config.nim_model, config.nim_timeout, config.nim_max_retries, self.start_hint
        )
        return NimSystem(
            client,
            config.nim_batch_size,
            config.corpus_chunk_size,
            checkpoint=self._finetuned_content,
            scratch=self.scratch,
        )

    @property
    def has_finetuned(self) -> bool:
        return self._finetuned_folder.is_dir()

    def _base(self) -> DenseSystem:
        reference, revision = self.config.base_model, self.config.base_model_revision
        own = EncodingContract.load(Path(resolve_model(reference)))
        contract = self._checked(own, reference) if own else EncodingContract.from_config(self.config)
        content = model_content(reference, revision)
        return DenseSystem("base", reference, content, contract, self._options(revision), self._compute)

    def _finetuned(self) -> DenseSystem:
        folder = self._finetuned_folder
        own = contract_of_model(folder)
        if own is None:
            logger.warning(
                f"{folder} carries no encoding contract: prefixes, lengths and pooling are taken from the configuration"
            )
            own = EncodingContract.from_config(self.config)
        contract = self._checked(own, str(folder))
        return DenseSystem(
            "finetuned", str(folder), self._finetuned_content, contract, self._options(None), self._compute
        )

    @cached_property
    def _finetuned_folder(self) -> Path:
        folder = Path(resolve_model(self.config.finetuned_model_path)).expanduser()
        if not (folder / "config.json").is_file() and (folder / "model" / "consolidated").is_dir():
            return folder / "model" / "consolidated"  # a checkpoint was named; the model is inside
        return folder

    @cached_property
    def _finetuned_content(self) -> str:
        return model_content(str(self._finetuned_folder), None) if self.has_finetuned else NO_CHECKPOINT

    def _checked(self, contract: EncodingContract, source: str) -> EncodingContract:
        lengths = contract.query_max_length, contract.passage_max_length
        asked = self.config.max_length
        if "max_length" in self.command_line and lengths != (asked, asked):
            raise PipelineError(
                f"max_length={asked} on the command line contradicts {lengths[0]} for queries and {lengths[1]} for "
                f"passages, with which {source} was made",
                fix="leave max_length out: each model is measured with its own lengths",
            )
        return contract.under(self.config, self.command_line, source)

    def _options(self, revision: str | None) -> LoadOptions:
        return LoadOptions(revision, self.config.trust_remote_code, self.config.attn_implementation)

    @cached_property
    def _compute(self) -> Compute:
        device = pick_device(self.config.device)
        return Compute(
            device,
            pick_dtype(self.config.precision, device),
            self.config.batch_tokens,
            self.config.corpus_chunk_size,
            self.scratch,
        )

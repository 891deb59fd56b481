"""Which model mines, and under which contract."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.checkpoints import existing_model
from pipeline.contract import EncodingContract
from pipeline.retrieval.hardware import pick_device
from pipeline.retrieval.transformer import LoadOptions
from pipeline.schemas.prep import PrepConfig
from pipeline_prep.encoding import Model


def model_of(config: PrepConfig, command_line: Iterable[str]) -> Model:
    """The base model under its contract: its own if it was made by `finetune`, else the configured one.

    Raises:
        PipelineError: the model does not exist; the command line contradicts its own contract.
    """
    said = set(command_line)
    stand_in = getattr(config, "fallback_base_model", None)
    reference = existing_model("base_model", config.base_model, stand_in, "base_model" in said)
    place = Path(reference).expanduser()
    own = EncodingContract.load(place) if place.is_dir() else None
    contract = own.under(config, said, str(place)) if own else EncodingContract.from_config(config)
    options = LoadOptions(config.base_model_revision, config.trust_remote_code, config.attn_implementation)
    return Model(reference, contract, options, pick_device(config.device), config.precision)

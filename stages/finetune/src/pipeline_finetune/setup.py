"""From a checked configuration to the parts of a training run; configuration ends here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from pipeline.contract import FILE_NAME, EncodingContract
from pipeline.retrieval.encoder import BiEncoder, LoadOptions
from pipeline.retrieval.hardware import pick_device, pick_dtype
from pipeline.run.stage import StageRun
from pipeline.schemas.finetune import EmbedFinetuneConfig
from pipeline_finetune.checkpoint import Checkpoint, Checkpoints
from pipeline_finetune.data import LoadedRows
from pipeline_finetune.embed import EmbedTraining, Limits, set_dropout
from pipeline_finetune.fingerprint import model_path, run_fingerprint
from pipeline_finetune.optimizer import make_optimizer
from pipeline_finetune.schedule import Schedule
from pipeline_finetune.tracking import Tracker, new_run_id
from pipeline_finetune.trainer import RunIdentity, Trainer


def training_contract(config: EmbedFinetuneConfig, run: StageRun) -> EncodingContract:
    """Prep's contract beside the training file if it was made for this base model, else the configuration's."""
    folder = Path(config.train_data_path).parent
    own = EncodingContract.from_config(config)
    upstream = EncodingContract.load(folder)
    if upstream is None:
        return own
    if upstream.base_model != config.base_model:
        run.log.warning(
            "negatives were mined with %s, training starts from %s: its own text format is used",
            upstream.base_model,
            config.base_model,
        )
        return own
    held = upstream.under(config, run.command_line, source=str(folder / FILE_NAME))
    contract = held.with_(revision=own.revision, temperature=own.temperature, family=own.family)
    changed = [name for name in contract.__dataclass_fields__ if getattr(contract, name) != getattr(own, name)]
    for name in set(changed) - {"dimension", "dtype", "tokenizer_hash"}:
        run.log.info("%s=%r as in %s (not %r)", name, getattr(contract, name), folder / FILE_NAME, getattr(own, name))
    return contract


def identify(
    config: EmbedFinetuneConfig, contract: EncodingContract, schedule: Schedule, corpus_path: Path
) -> RunIdentity:
    """The run's fingerprint over settings and the content of everything it reads."""
    val_path = Path(config.val_data_path) if config.val_data_path else None
    contents = {
        "train": Path(config.train_data_path),
        "corpus": corpus_path,
        "val": val_path,
        "base_model": model_path(config.base_model),
    }
    fingerprint = run_fingerprint(config, contract, schedule, contents)
    return RunIdentity(fingerprint, new_run_id(fingerprint), config.seed)


def make_trainer(
    config: EmbedFinetuneConfig,
    contract: EncodingContract,
    rows: tuple[LoadedRows, LoadedRows | None],
    schedule: Schedule,
    checkpoints: Checkpoints,
    identity: RunIdentity,
    newest: Checkpoint | None,
) -> Trainer:
    """Model, data, loss and optimizer put together, at the start or where `newest` left off."""
    device = pick_device(config.device)
    dtype = pick_dtype(config.precision, device)
    torch.manual_seed(config.seed)
    kernel = attention(config.attn_implementation, device, dtype, config.dropout)
    # The revision names a commit of the hub model; a checkpoint of ours has none.
    options = LoadOptions(None if newest else config.base_model_revision, config.trust_remote_code, kernel)
    place = str(newest.consolidated) if newest else config.base_model
    encoder = BiEncoder.load(place, contract, device=device, options=options)
    set_dropout(encoder, config.dropout)
    limits = Limits(config.micro_batch_tokens, config.activation_tokens, schedule.local_batch)
    training = EmbedTraining.prepare(
        encoder,
        *rows,
        n_passages=config.train_n_passages,
        temperature=config.temperature,
        in_batch_negatives=config.in_batch_negatives,
        dtype=dtype,
        limits=limits,
    )
    optimizer = make_optimizer(
        encoder,
        config.optimizer_backend,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        master_weight_bits=config.flash_adamw_master_weight_bits,
    )
    tracker = Tracker(
        Path(config.checkpoint_dir),
        identity.run_id,
        start_step=newest.step if newest else 0,
        total_steps=schedule.total_steps,
    )
    trainer = Trainer(
        training,
        optimizer,
        schedule,
        checkpoints=checkpoints,
        tracker=tracker,
        identity=identity,
        max_grad_norm=config.max_grad_norm,
    )
    if newest:
        trainer.restore(newest)
    return trainer


def attention(wanted: str | None, device: torch.device, dtype: torch.dtype, dropout: float | None) -> str | None:
    """The asked attention kernel, else the fastest for this machine (None is torch's own).

    On a GPU FlashAttention 2 where it is installed. On a CPU torch's fused kernel is slow in bf16 (its backward pass
    most of all) and cannot drop out: there the plain formula, whose products run as large bf16 ones, takes a third of
    the time.
    """
    if wanted:
        return wanted
    if device.type == "cuda":
        return "flash_attention_2" if find_spec("flash_attn") else None
    return "eager" if dtype == torch.bfloat16 or dropout != 0 else None

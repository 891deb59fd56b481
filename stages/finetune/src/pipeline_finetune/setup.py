"""From a checked configuration to the parts of a training run; configuration ends here."""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from pipeline.contract import FILE_NAME, EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.sources.read import Needs, read_sources
from pipeline.records.sources.rows import Rows
from pipeline.retrieval.attention import plain_attention_is_faster, use_fast_dropout, use_plain_attention
from pipeline.retrieval.hardware import pick_device, pick_dtype
from pipeline.retrieval.transformer import LoadOptions
from pipeline.run.stage import StageRun
from pipeline.schemas.finetune import FinetuneConfig
from pipeline_finetune.checkpoint import Checkpoint, Checkpoints
from pipeline_finetune.data import TrainingData, open_data, prepare_data
from pipeline_finetune.distributed import TrainingWorld
from pipeline_finetune.families import FAMILIES, FamilyTraining
from pipeline_finetune.health import CollapseGuard
from pipeline_finetune.memory import activation_tokens, micro_batch_tokens
from pipeline_finetune.optimizer import make_optimizer, pick_backend
from pipeline_finetune.schedule import Schedule
from pipeline_finetune.sinks import open_sinks
from pipeline_finetune.strategy import Compute
from pipeline_finetune.tracking import Tracker, log
from pipeline_finetune.trainer import Policy, RunIdentity, Trainer


@dataclass(frozen=True)
class SourceRows:
    """Checked training and validation rows."""

    train: Rows
    val: Rows | None


def read_rows(config: FinetuneConfig) -> SourceRows:
    """Read and check every row before anything else costs time."""
    needs = Needs(FAMILIES[type(config)].needs_negatives(config), config.loss in ("margin_mse", "kl"))
    how = {"seed": config.seed, "use_dataset_instruction": config.use_dataset_instruction}
    train = read_sources(config.train_data_path, max_samples=config.max_train_samples, needs=needs, **how)
    val = read_sources(config.val_data_path, kind="val", **how)
    assert train is not None
    return SourceRows(train, val)


def training_contract(config: FinetuneConfig, run: StageRun) -> EncodingContract:
    """Prep's contract beside the training file if it was made for this base model, else the configuration's."""
    own = EncodingContract.from_config(config, run.family.name)
    upstream, folder = _contract_beside(config.train_data_path)
    if upstream is None or upstream.family != own.family:
        return own
    if upstream.base_model != config.base_model:
        run.log.warning(
            "negatives were mined with %s, training starts from %s: its own text format is used",
            upstream.base_model,
            config.base_model,
        )
        return own
    held = upstream.under(config, run.command_line, source=str(folder / FILE_NAME))
    contract = held.with_(revision=own.revision, temperature=own.temperature, share_encoder=own.share_encoder)
    changed = [item.name for item in dataclasses.fields(own) if getattr(contract, item.name) != getattr(own, item.name)]
    for name in sorted(set(changed) - {"dimension", "dtype", "tokenizer_hash"}):
        run.log.info("%s=%r as in %s (not %r)", name, getattr(contract, name), folder / FILE_NAME, getattr(own, name))
    return contract


def _contract_beside(source: object) -> tuple[EncodingContract | None, Path]:
    """The contract in the folder of a single local source."""
    if not isinstance(source, str) or source.startswith("hf://"):
        return None, Path()
    folder = Path(source).expanduser().parent
    return EncodingContract.load(folder), folder


def make_trainer(
    config: FinetuneConfig,
    contract: EncodingContract,
    rows: SourceRows | None,
    schedule: Schedule,
    checkpoints: Checkpoints,
    identity: RunIdentity,
    newest: Checkpoint | None,
    world: TrainingWorld,
) -> Trainer:
    """Model, data, loss and optimizer put together, at the start or where `newest` left off.

    `rows` are None on every process but the first.
    """
    family = FAMILIES[type(config)]
    device = pick_device(config.device)
    dtype = pick_dtype(config.precision, device)
    kernel = config.attn_implementation or flash_attention(device)
    # Revision and sub-model name parts of the base model; a checkpoint of ours has neither.
    options = LoadOptions(
        None if newest else config.base_model_revision,
        config.trust_remote_code,
        kernel,
        None if newest else config.extract_submodel,
    )
    torch.manual_seed(config.seed)
    place = str(newest.consolidated) if newest else config.base_model
    encoder = family.load(place, contract, device, options, config.seed)
    set_dropout(encoder, config.dropout)
    if device.type == "cpu":
        use_fast_dropout(encoder)
        if kernel is None and (plain_attention_is_faster(device, dtype) or config.dropout != 0):
            for body in family.bodies(encoder):
                kernel = use_plain_attention(body)
    data = _data(config, encoder, family, rows, world)
    if config.torch_compile:
        need_compiler(device)
        for body in family.bodies(encoder):
            body.compile(dynamic=True)
    compute = Compute(
        dtype,
        micro_batch_tokens(config.micro_batch_tokens, device),
        activation_tokens(
            config.activation_tokens, family.bodies(encoder)[0].config, family.longest(contract), dtype, device
        ),
        schedule.local_batch,
        config.pad_to_multiple_of,
    )
    training = family.training(config, encoder, data, compute, world)
    backend = pick_backend(config.optimizer_backend, device)
    optimizer = make_optimizer(
        encoder,
        backend,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        master_weight_bits=config.flash_adamw_master_weight_bits,
    )
    tracker = None
    if world.leads:
        log.info("optimizer %s, attention %s, %s, on %s", backend, kernel or "torch's own", _name(dtype), device)
        tracker = _tracker(config, identity, schedule, newest)
    trainer = Trainer(
        training,
        optimizer,
        schedule,
        checkpoints=checkpoints,
        tracker=tracker,
        identity=identity,
        policy=Policy(
            config.max_grad_norm,
            getattr(config, "data_order", "random"),
            config.early_stopping_patience,
            config.select_best or config.early_stopping_patience is not None,
            CollapseGuard(config.stop_on_collapse),
        ),
        world=world,
    )
    if newest:
        trainer.restore(newest)
    return trainer


def _data(
    config: FinetuneConfig, encoder: nn.Module, family: FamilyTraining, rows: SourceRows | None, world: TrainingWorld
) -> TrainingData:
    """Tokens of every text, written once by the first process and shared by all."""
    folder = None
    if rows is not None:
        folder = prepare_data(
            Path(config.output_dir),
            rows.train,
            rows.val,
            n_passages=config.train_n_passages,
            eval_negatives=config.eval_negative_size or config.train_n_passages - 1,
            encode=family.encode(encoder),
            val_corpus_size=config.val_corpus_size,
            seed=config.seed,
        ).folder
        family.report(encoder)
    return open_data(world.share(folder))  # type: ignore[arg-type]


def _tracker(config: FinetuneConfig, identity: RunIdentity, schedule: Schedule, newest: Checkpoint | None) -> Tracker:
    sinks = open_sinks(
        Path(config.output_dir) / "logs",
        identity.run_id,
        dataclasses.asdict(config),
        tensorboard=config.tensorboard,
        wandb=config.wandb,
    )
    return Tracker(
        Path(config.checkpoint_dir),
        identity.run_id,
        start_step=newest.step if newest else 0,
        total_steps=schedule.total_steps,
        sinks=sinks,
    )


def flash_attention(device: torch.device) -> str | None:
    """FlashAttention 2 on a GPU where it is installed (it also leaves padding out), else None: torch's own choice."""
    return "flash_attention_2" if device.type == "cuda" and find_spec("flash_attn") else None


def need_compiler(device: torch.device) -> None:
    """Refuse `torch_compile` on a CPU without a C++ compiler, which torch would only miss in the first step."""
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise PipelineError(
            "torch_compile=true needs a C++ compiler on a CPU, and g++ is not on PATH",
            fix="apt install g++ (or name one in CXX), or torch_compile=false",
        )


def set_dropout(model: nn.Module, share: float | None) -> None:
    """Replace the model's own dropout; None keeps it. Only training is concerned: the saved configuration stays."""
    if share is None:
        return
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = share


def _name(dtype: torch.dtype) -> str:
    return "bf16" if dtype == torch.bfloat16 else "fp32"

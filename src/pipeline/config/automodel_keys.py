"""What each key of NVIDIA AutoModel's retrieval recipes becomes here. Data alone: no `_target_` is ever imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class To:
    """The key becomes ours. `change` rewrites the value, or returns None where ours has nothing like it (`why`)."""

    key: str
    change: Callable[[Any], Any] = lambda value: value
    why: str = "there is no such choice here"


@dataclass(frozen=True)
class Same:
    """With one of these values (any, when there are none) what we do anyway (`how`); others are not converted."""

    how: str
    values: tuple[Any, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class No:
    """Not converted."""

    why: str


Rule = To | Same | No

RECIPES = {
    "TrainBiEncoderRecipe": "embed",
    "TrainBiencoderRecipe": "embed",
    "TrainCrossEncoderRecipe": "rerank",
}
MODELS = {
    "NeMoAutoModelBiEncoder.from_pretrained": "embed",
    "NeMoAutoModelBiencoder.from_pretrained": "embed",
    "NeMoAutoModelCrossEncoder.from_pretrained": "rerank",
}

# The last names of `_target_` classes that we know to do what ours do.
_COLLATORS = ("BiEncoderCollator", "RetrievalBiencoderCollator", "RetrievalEncoderCollator", "CrossEncoderCollator")
_DATASETS = ("make_retrieval_dataset", "RetrievalDatasetConfig", "InlineRetrievalDatasetConfig")
_OWN_COLLATOR = "a collator of its own: look how it builds its texts"
_OWN_DATASET = "a dataset of its own: its rows must be in a format we read"

# Their defaults where ours differ: a key that the file leaves out must not change the training.
DEFAULTS: dict[str, dict[str, Any]] = {
    "embed": {"temperature": 1.0, "query_prefix": "", "passage_prefix": "", "num_epochs": 10, "local_batch_size": 1},
    "rerank": {"num_epochs": 10, "local_batch_size": 1},
}
# AutoModel has these as null when they are left out; `null` means the same here.
NULL_DEFAULTS = ("val_every_steps",)


def _lookup(table: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda value: table.get(str(value))


def _class(table: dict[str, Any]) -> Callable[[Any], Any]:
    """Look up a `_target_` by its last name."""
    return lambda value: table.get(str(value).rsplit(".", 1)[-1])


def _negatives(passages: Any) -> Any:
    return passages - 1 if isinstance(passages, int) else passages


def _with_space(prefix: Any) -> str:
    """Their collator puts a space behind a prefix that is not empty; ours are verbatim."""
    return f"{prefix} " if prefix else ""


_POOLING = {name: name for name in ("avg", "weighted_avg", "cls", "last", "colbert")}
_POOLING |= {"mean": "avg", "multi_vector": "colbert"}
_DTYPES = {"bfloat16": "bf16", "bf16": "bf16", "float32": "fp32", "fp32": "fp32", "auto": "auto"}
_OPTIMIZERS = {"FusedAdam": "auto", "AdamW": "adamw", "FlashAdamW": "flash_adamw"}
_ONE_SEED = "one `seed` rules everything here"
_KERNELS = "kernels are picked for the hardware; there is no key for it"
_LAUNCH = "data parallelism alone, over as many processes as torchrun starts"

_MODEL: dict[str, Rule] = {
    "model._target_": Same("decides the family"),
    "model.pretrained_model_name_or_path": To("base_model"),
    "model.revision": To("base_model_revision"),
    "model.trust_remote_code": To("trust_remote_code"),
    "model.share_encoder": To("share_encoder"),
    "model.pooling": To("pooling", _lookup(_POOLING)),
    "model.l2_normalize": To("l2_normalize"),
    "model.num_labels": To("num_labels"),
    "model.temperature": To("temperature"),
    "model.extract_submodel": To("extract_submodel"),
    "model.attn_implementation": To("attn_implementation"),
    "model.torch_dtype": To("precision", _class(_DTYPES), "training computes in bf16 or fp32"),
    "model.do_distributed_inbatch_negative": To("cross_rank_negatives"),
    "model.detach_distributed_inbatch_negatives": Same(
        "gradients reach the passages of the other processes", (False,), "gradients always reach them here"
    ),
    "model.is_causal": Same("attention is bidirectional", (False,), "attention is always bidirectional here"),
    "model.use_liger_kernel": Same(_KERNELS),
    "model.use_sdpa_patching": Same(_KERNELS),
}
_TOKENIZER: dict[str, Rule] = {
    "tokenizer._target_": Same("the model's own tokenizer"),
    "tokenizer.trust_remote_code": Same("the model's own tokenizer", (False,), "a tokenizer's code is never run"),
    "tokenizer.padding_side": Same("pooling is right on either side"),
    "tokenizer.add_bos_token": No("the tokenizer's own setting is used"),
    "tokenizer.add_eos_token": No("the tokenizer's own setting is used"),
}
_DATASET: dict[str, Rule] = {
    "dataset._target_": Same("every format is recognised by its content", _DATASETS, _OWN_DATASET),
    "dataset.model_type": Same("decides the family"),
    "dataset.data_type": Same("training rows", ("train",), "rows of `train_data_path` are for training"),
    "dataset.data_dir_list": To("train_data_path"),
    "dataset.n_passages": To("train_n_passages"),
    "dataset.train_n_passages": To("train_n_passages"),
    "dataset.max_train_samples": To("max_train_samples"),
    "dataset.use_dataset_instruction": To("use_dataset_instruction"),
    "dataset.do_shuffle": Same(
        "`max_train_samples` draws by the seed", (True, None), "`max_train_samples` always draws"
    ),
    "dataset.train_data_select_offset": Same("rows from the first on", (0,), "rows are drawn by the seed"),
    "dataset.cycle_positive_docs": Same("the first positive", (False,), "the first positive of a row is trained on"),
    "dataset.use_text_in_document": Same("texts, no images", (False,), "image documents are not supported"),
    "dataset.eval_negative_size": To("eval_negative_size"),
}
_LOADER: dict[str, Rule] = {
    "dataloader._target_": Same("texts are tokenised once, before the first step"),
    "dataloader.shuffle": Same("a new random order every epoch", (True,), "rows are always shuffled"),
    "dataloader.num_workers": Same("texts are tokenised once, before the first step"),
    "dataloader.collate_fn._target_": Same("our own batching", _COLLATORS, _OWN_COLLATOR),
    "dataloader.collate_fn.q_max_len": To("query_max_length"),
    "dataloader.collate_fn.p_max_len": To("passage_max_length"),
    "dataloader.collate_fn.query_prefix": To("query_prefix", _with_space),
    "dataloader.collate_fn.passage_prefix": To("passage_prefix", _with_space),
    "dataloader.collate_fn.rerank_max_length": To("rerank_max_length"),
    "dataloader.collate_fn.prompt_template": To("prompt_template"),
    "dataloader.collate_fn.pad_to_multiple_of": To("pad_to_multiple_of"),
    "dataloader.collate_fn.padding": Same(
        "batches are padded to their longest text", (True, "longest"), "batches are always padded to their longest text"
    ),
    "dataloader.collate_fn.use_dataset_instruction": To("use_dataset_instruction"),
}
_VALIDATION: dict[str, Rule] = {
    "validation_dataset._target_": Same("every format is recognised by its content", _DATASETS, _OWN_DATASET),
    "validation_dataset.model_type": Same("decides the family"),
    "validation_dataset.data_type": Same("validation rows", ("eval",), "rows of `val_data_path` are for validation"),
    "validation_dataset.data_dir_list": To("val_data_path"),
    "validation_dataset.eval_negative_size": To("eval_negative_size"),
    "validation_dataset.n_passages": To("eval_negative_size", _negatives),
    "validation_dataset.train_n_passages": To("eval_negative_size", _negatives),
    "validation_dataset.do_shuffle": Same("every row counts, in any order"),
    "validation_dataset.max_train_samples": Same("all rows", (None,), "validation takes every row: shorten its file"),
    "validation_dataset.train_data_select_offset": Same("all rows", (0,), "validation takes every row"),
    "validation_dataloader._target_": Same("texts are tokenised once, before the first step"),
    "validation_dataloader.batch_size": Same("batches are made to fit the memory"),
    "validation_dataloader.shuffle": Same("every row counts, in any order"),
    "validation_dataloader.num_workers": Same("texts are tokenised once, before the first step"),
    "validation_dataloader.collate_fn._target_": Same("our own batching", _COLLATORS, _OWN_COLLATOR),
}
_SCHEDULE: dict[str, Rule] = {
    "step_scheduler.global_batch_size": To("global_batch_size"),
    "step_scheduler.local_batch_size": To("local_batch_size"),
    "step_scheduler.num_epochs": To("num_epochs"),
    "step_scheduler.max_steps": To("max_steps"),
    "step_scheduler.ckpt_every_steps": To("checkpoint_every_steps"),
    "step_scheduler.val_every_steps": To("val_every_steps"),
    "step_scheduler.log_remote_every_steps": No("every step is logged"),
    "lr_scheduler.lr_warmup_steps": To("lr_warmup_steps"),
    "lr_scheduler.lr_decay_style": To("lr_decay_style", _lookup({"cosine": "cosine", "linear": "linear"})),
    "lr_scheduler.min_lr": No("the rate ends at 1 % of its peak"),
    "lr_scheduler.init_lr": No("warm-up begins at a tenth of the peak"),
    "lr_scheduler.lr_decay_steps": No("the decay lasts as long as the training"),
    "clip_grad_norm.max_norm": To("max_grad_norm"),
    "max_grad_norm": To("max_grad_norm"),
}
_OPTIMIZER: dict[str, Rule] = {
    "optimizer._target_": To("optimizer_backend", _class(_OPTIMIZERS), "not an optimizer of ours: `auto` picks one"),
    "optimizer.lr": To("learning_rate"),
    "optimizer.weight_decay": To("weight_decay"),
    "optimizer.master_weight_bits": To("flash_adamw_master_weight_bits"),
    "optimizer.adam_w_mode": Same("decay apart from the gradient", (True,), "always decoupled decay (AdamW)"),
    "optimizer.bias_correction": Same("with bias correction", (True,), "always with bias correction"),
    "optimizer.master_weights": Same("weights are kept in fp32", (True,), "weights are always kept in fp32"),
    "optimizer.betas": Same("the same", ([0.9, 0.999],), "betas are 0.9 and 0.999"),
    "optimizer.eps": Same("the same", (1e-8,), "eps is 1e-8"),
    "optimizer.fused": Same(_KERNELS),
}
_CHECKPOINT: dict[str, Rule] = {
    "checkpoint.enabled": Same("checkpoints are written", (True,), "checkpoints are always written"),
    "checkpoint.checkpoint_dir": To("checkpoint_dir"),
    "checkpoint.restore_from": To("restore_from"),
    "checkpoint.max_recent_checkpoints": To("keep_checkpoints"),
    "checkpoint.best_metric_key": To("best_metric"),
    "checkpoint.model_save_format": Same("safetensors", ("safetensors",), "weights are written as safetensors alone"),
    "checkpoint.save_consolidated": Same(
        "every checkpoint holds the whole model", (True, "every", "final"), "every checkpoint holds the whole model"
    ),
    "checkpoint.is_async": Same("written before the next step", (False,), "checkpoints are written before going on"),
}
_DISTRIBUTED: dict[str, Rule] = {
    "dist_env.backend": Same("nccl with GPUs, gloo without"),
    "dist_env.timeout_minutes": To("timeout_minutes"),
    "distributed._target_": Same(_LAUNCH),
    "distributed.strategy": Same(_LAUNCH),
    "distributed.dp_replicate_size": Same(_LAUNCH, (1, "none", None), "as many processes as torchrun starts"),
    "distributed.pp_size": Same(_LAUNCH, (1, None), "pipeline parallelism is not supported"),
    "distributed.dp_size": Same(_LAUNCH, ("none", None), "as many processes as torchrun starts"),
    "distributed.tp_size": To("tp_size"),
    "distributed.cp_size": To("cp_size"),
    "distributed.sequence_parallel": Same("off", (False,), "sequence parallelism is not supported"),
    "distributed.activation_checkpointing": Same(
        "off", (False,), "memory is bounded by `activation_tokens` (larger steps are computed in parts)"
    ),
    "compile.enabled": To("torch_compile"),
    "wandb.enable": To("wandb"),
}
_WHOLE: dict[str, Rule] = {
    "recipe": Same("decides the family"),
    "recipe._target_": Same("decides the family"),
    "seed": To("seed"),
    "temperature": To("temperature"),
    "train_n_passages": To("train_n_passages"),
    "eval_negative_size": To("eval_negative_size"),
    "peft": No("LoRA is not built yet: all weights are trained"),
    "ci": No("settings of AutoModel's own tests"),
}
SECTIONS = {
    "wandb.": No("project, entity and names stand in `[wandb]` of env.toml"),
    "compile.": No("`torch_compile` has no further settings"),
}
"""For every other key of a section."""
KEYS: dict[str, Rule] = {
    **_WHOLE, **_MODEL, **_TOKENIZER, **_DATASET, **_LOADER, **_VALIDATION,
    **_SCHEDULE, **_OPTIMIZER, **_CHECKPOINT, **_DISTRIBUTED,
}  # fmt: skip
# These have to say the same as another key of the same file.
TWINS = {
    "tokenizer.pretrained_model_name_or_path": ("model.pretrained_model_name_or_path", "the model's tokenizer is used"),
    "dataset.seed": ("seed", _ONE_SEED),
    "validation_dataset.seed": ("seed", _ONE_SEED),
    **{
        f"validation_dataloader.collate_fn.{name}": (
            f"dataloader.collate_fn.{name}",
            "validation reads texts as training does",
        )
        for name in (
            "q_max_len", "p_max_len", "query_prefix", "passage_prefix", "rerank_max_length", "prompt_template",
            "pad_to_multiple_of", "padding", "use_dataset_instruction",
        )
    },
}  # fmt: skip

"""Keys of the finetune stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.schemas.common import ModelLoading, Precision, StageConfig, TextFormat
from pipeline.schemas.fields import key

PROMPT_TEMPLATE = "question:{query} \n \n passage:{passage}"


@dataclass(kw_only=True)
class FinetuneConfig(ModelLoading, StageConfig):
    """Training rows in, a model that loads anywhere out."""

    output_dir: str = key("${run_dir}/stage2_finetune", "Folder of the stage.", affects_output=False)
    checkpoint_dir: str = key("${output_dir}/checkpoints", "Folder of the checkpoints.", affects_output=False)
    train_data_path: str = key(
        "${run_dir}/stage1_data_prep/train_mined.automodel_unrolled.json", "Training rows.", reads="prep"
    )
    val_data_path: str | None = key(
        "${run_dir}/stage1_data_prep/val.json",
        "Validation rows; null or an empty file trains without.",
        reads="prep",
        optional_input=True,
    )
    num_epochs: int = key(3, "Passes over the training rows.", gt=0)
    max_steps: int | None = key(None, "Stop after this many optimizer steps.", gt=0)
    global_batch_size: int = key(128, "Queries per optimizer step, over all processes.", gt=0)
    auto_scale_batch: bool = key(
        True, "Fewer than 2,000 rows: scale global_batch_size down, unless you set it (command line or your own YAML)."
    )
    local_batch_size: int = key(
        4, "Queries per process and micro-batch when the loss sees one query's passages alone.", gt=0
    )
    micro_batch_tokens: int | None = key(
        None,
        "Tokens sent through the model at once; null takes 2,048 on a CPU (its caches) and 16,384 on a GPU.",
        gt=0,
        affects_output=False,
    )
    activation_tokens: int | None = key(
        None,
        "Most tokens whose activations are held at once; a larger step is split. null: from the free memory.",
        gt=0,
        affects_output=False,
    )
    learning_rate: float = key(1e-5, "Peak learning rate.", gt=0)
    lr_warmup_steps: int = key(5, "Steps of linear warm-up; held below the number of steps.", ge=0)
    lr_decay_style: Literal["cosine", "linear"] = key("cosine", "Shape of the decay.")
    weight_decay: float = key(0.01, "Decay of weight matrices (never of norms and biases).", ge=0)
    max_grad_norm: float = key(1.0, "Gradients are scaled down to this norm.", gt=0)
    optimizer_backend: Literal["auto", "adamw", "fused_adam", "flash_adamw"] = key(
        "auto", "`auto` is torch's own AdamW (fused); the others need packages of their own."
    )
    flash_adamw_master_weight_bits: Literal[24, 32] | None = key(32, "Precision of FlashAdamW's master weights.")
    precision: Precision = key("auto", "Compute type; `auto` takes bf16 where the hardware has it.")
    dropout: float | None = key(
        None, "Dropout while training; null keeps the model's own. 0 is much faster on a CPU.", ge=0, lt=1
    )
    train_n_passages: int = key(5, "Passages per query: 1 positive and the rest hard negatives.", ge=2)
    temperature: float = key(0.02, "Scores are divided by this before the softmax.", gt=0)
    checkpoint_every_steps: int = key(
        100, "Steps between checkpoints; shortened for short runs.", gt=0, affects_output=False
    )
    val_every_steps: int = key(100, "Steps between validations; shortened for short runs.", gt=0, affects_output=False)
    keep_checkpoints: int = key(2, "Newest checkpoints kept, besides the best.", ge=1, affects_output=False)
    select_best: bool = key(False, "Publish the checkpoint with the lowest validation loss instead of the last.")
    resume: Literal["auto", "never", "must"] = key(
        "auto",
        "`auto` continues the same run and sets another one aside; `never` starts anew; `must` continues or fails.",
        affects_output=False,
    )

    def problems(self) -> list[tuple[str, str]]:
        return self.remote_code_problems()


@dataclass(kw_only=True)
class EmbedFinetuneConfig(TextFormat, FinetuneConfig):
    """finetune for bi-encoders: contrastive loss."""

    in_batch_negatives: bool = key(
        False, "Passages of the other queries count as negatives too (the same document and known positives masked)."
    )


@dataclass(kw_only=True)
class RerankFinetuneConfig(FinetuneConfig):
    """finetune for cross-encoders: listwise softmax over one query's passages."""

    run_dir: str = key("./output/rerank", "Folder that all stages of this run share.", affects_output=False)
    train_data_path: str = key(
        "${run_dir}/stage1_prep/train_mined.automodel_unrolled.json", "Training rows.", reads="prep"
    )
    val_data_path: str | None = key(
        "${run_dir}/stage1_prep/val.json",
        "Validation rows; null or an empty file trains without.",
        reads="prep",
        optional_input=True,
    )
    base_model: str = key(
        "nvidia/llama-nemotron-rerank-1b-v2", "Hub id, local folder, or `embedded:all-MiniLM-L6-v2`.", reads="user"
    )
    learning_rate: float = key(3e-6, "Peak learning rate.", gt=0)
    lr_warmup_steps: int = key(100, "Steps of linear warm-up; held below the number of steps.", ge=0)
    temperature: float = key(1.0, "Scores are divided by this before the softmax.", gt=0)
    num_labels: Literal[1] = key(1, "Scores per pair.")
    pooling: Literal["avg", "cls", "last"] = key("avg", "How token vectors become one vector.")
    rerank_max_length: int = key(512, "Longest query and passage together, in tokens; the passage is cut.", ge=16)
    prompt_template: str = key(PROMPT_TEMPLATE, "How query and passage become one text.")

    def problems(self) -> list[tuple[str, str]]:
        return super().problems() + template_problems(self.prompt_template)


def template_problems(template: str) -> list[tuple[str, str]]:
    """A rerank template must name both of its parts."""
    missing = [part for part in ("{query}", "{passage}") if part not in template]
    return [("prompt_template", f"lacks {' and '.join(missing)}")] if missing else []

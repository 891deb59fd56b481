"""Keys of the finetune stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pipeline.schemas.common import ModelLoading, Precision, StageConfig, TextFormat
from pipeline.schemas.fields import key

PROMPT_TEMPLATE = "question:{query} \n \n passage:{passage}"


Optimizer = Literal["auto", "adamw", "fused_adam", "flash_adamw"]
BestMetric = Literal["val_ndcg10", "val_mrr", "val_acc1", "val_loss"]
Sources = list[Any] | str
"""One source, or a list of sources; an entry is a path or `{path: …, num_samples: …}`."""


@dataclass(kw_only=True)
class FinetuneConfig(ModelLoading, StageConfig):
    """Training rows in, a model that loads anywhere out."""

    version: ClassVar[int] = 2

    output_dir: str = key("${run_dir}/stage2_finetune", "Folder of the stage.", affects_output=False)
    checkpoint_dir: str = key("${output_dir}/checkpoints", "Folder of the checkpoints.", affects_output=False)
    train_data_path: Sources = key(
        "${run_dir}/stage1_data_prep/train_mined.automodel_unrolled.json",
        "Training rows: a file, a BEIR folder, hf://org/repo[/subset], or a list of those "
        "({path: …, num_samples: …} takes a sample of one).",
        reads="prep",
    )
    val_data_path: Sources | None = key(
        "${run_dir}/stage1_data_prep/val.json",
        "Validation rows, in any of the same formats; null or an empty file trains without.",
        reads="prep",
        optional_input=True,
    )
    max_train_samples: int | None = key(None, "Train on this many rows at most, drawn by the seed.", gt=0)
    use_dataset_instruction: bool = key(
        False, "Take the prefixes of queries and passages from the corpus's own metadata instead of the configuration."
    )
    extract_submodel: str | None = key(
        None, "Part of a larger model to train, by attribute path, such as `language_model`."
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
    pad_to_multiple_of: int | None = key(
        None, "Pad every batch to a multiple of this many tokens; null pads to its longest text.", gt=0,
        affects_output=False,
    )  # fmt: skip
    learning_rate: float = key(1e-5, "Peak learning rate.", gt=0)
    lr_warmup_steps: int = key(5, "Steps of linear warm-up; held below the number of steps.", ge=0)
    lr_decay_style: Literal["cosine", "linear"] = key("cosine", "Shape of the decay.")
    weight_decay: float = key(0.01, "Decay of weight matrices (never of norms and biases).", ge=0)
    max_grad_norm: float = key(1.0, "Gradients are scaled down to this norm.", gt=0)
    optimizer_backend: Optimizer = key(
        "auto", "`auto` takes TransformerEngine's FusedAdam, FlashAdamW or torch's AdamW, the first that works here."
    )
    flash_adamw_master_weight_bits: Literal[24, 32] | None = key(32, "Precision of FlashAdamW's master weights.")
    precision: Precision = key("auto", "Compute type; `auto` takes bf16 where the hardware has it.")
    torch_compile: bool = key(
        False, "Compile the model: slow to start, faster steps on a GPU for long runs.", affects_output=False
    )
    dropout: float | None = key(
        None, "Dropout while training; null keeps the model's own. 0 is much faster on a CPU.", ge=0, lt=1
    )
    train_n_passages: int = key(5, "Passages per query: 1 positive and the rest hard negatives.", ge=2)
    eval_negative_size: int | None = key(None, "Negatives per query in validation; null: train_n_passages - 1.", ge=1)
    temperature: float = key(0.02, "Scores are divided by this before the softmax.", gt=0)
    checkpoint_every_steps: int | None = key(
        100,
        "Steps between checkpoints; shortened for short runs. null: one per epoch.",
        gt=0,
        affects_output=False,
        aliases=("ckpt_every_steps",),
    )
    val_every_steps: int | None = key(
        100,
        "Steps between validations; shortened for short runs. null: with every checkpoint.",
        gt=0,
        affects_output=False,
    )
    val_corpus_size: int = key(
        10000,
        "Passages that validation searches for val_ndcg10 (all of a smaller corpus); 0 leaves it out.",
        ge=0,
    )
    keep_checkpoints: int = key(2, "Newest checkpoints kept, besides the best.", ge=1, affects_output=False)
    select_best: bool = key(False, "Publish the best checkpoint by best_metric instead of the last.")
    best_metric: BestMetric = key(
        "val_ndcg10", "What makes a checkpoint the best one, and what early stopping watches."
    )
    early_stopping_patience: int | None = key(
        None, "Stop after this many validations without a better best_metric; null never does.", gt=0
    )
    stop_on_collapse: bool = key(
        True, "Stop with an explanation when all passages have got equal scores; false warns.", affects_output=False
    )
    restore_from: str | None = key(
        None, "Checkpoint to continue from: LATEST, a name in checkpoint_dir, or a path; null decides by `resume`."
    )
    resume: Literal["auto", "never", "must"] = key(
        "auto",
        "`auto` continues the same run and sets another one aside; `never` starts anew; `must` continues or fails.",
        affects_output=False,
    )
    nproc_per_node: int | Literal["gpu"] = key(
        1, "Processes that train, through torchrun; `gpu`: one for each GPU.", ge=1, affects_output=False
    )
    timeout_minutes: int = key(
        30, "How long a process waits for the others of a distributed run.", gt=0, affects_output=False
    )
    tp_size: int = key(1, "Tensor-parallel processes; only 1 is supported.", ge=1)
    cp_size: int = key(1, "Context-parallel processes; only 1 is supported.", ge=1)
    tensorboard: bool = key(False, "Also write TensorBoard events to logs/tensorboard.", affects_output=False)
    wandb: bool | None = key(
        None,
        "Also log to Weights & Biases (WANDB_API_KEY from the environment); null: if env.toml has a table `[wandb]`.",
        affects_output=False,
    )

    def problems(self) -> list[tuple[str, str]]:
        parallel = [
            (name, "more than 1 is not supported: data parallelism alone (torchrun) is")
            for name in ("tp_size", "cp_size")
            if getattr(self, name) > 1
        ]
        return self.remote_code_problems() + parallel


@dataclass(kw_only=True)
class EmbedFinetuneConfig(TextFormat, FinetuneConfig):
    """finetune for bi-encoders: contrastive loss."""

    share_encoder: bool = key(True, "One encoder for queries and passages; false trains two that start equal.")
    loss: Literal["infonce", "margin_mse", "kl"] = key(
        "infonce", "`infonce` contrastive; `margin_mse` and `kl` distil the scores of a teacher that the rows carry."
    )
    in_batch_negatives: bool = key(
        False, "Passages of the other queries count as negatives too (the same document and known positives masked)."
    )
    cross_rank_negatives: bool = key(
        False,
        "Passages of the other processes count too, with gradients; needs in_batch_negatives.",
        aliases=("do_distributed_inbatch_negative",),
    )
    false_negative_margin: float | None = key(
        None,
        "In-batch passages that score above the positive minus this (in cosine) are left out; null keeps them.",
        ge=-2,
        le=2,
    )
    matryoshka_dims: list[int] = key(
        [], "Also train these shorter vectors, such as [256,128,64], so that vectors may be cut when used."
    )
    data_order: Literal["random", "clustered"] = key(
        "random", "`clustered` puts queries that share passages into the same step: faster with hard negatives alone."
    )

    def problems(self) -> list[tuple[str, str]]:
        found = super().problems()
        if self.cross_rank_negatives and not self.in_batch_negatives:
            found.append(("cross_rank_negatives", "needs in_batch_negatives=true"))
        if self.loss != "infonce" and self.in_batch_negatives:
            found.append(("in_batch_negatives", f"loss={self.loss} compares the rows' own passages; set it to false"))
        if self.false_negative_margin is not None and not self.in_batch_negatives:
            found.append(("false_negative_margin", "leaves out in-batch negatives: needs in_batch_negatives=true"))
        if self.false_negative_margin is not None and not self.l2_normalize:
            found.append(("false_negative_margin", "is a distance of cosines: needs l2_normalize=true"))
        if self.pooling == "colbert":
            off = {"cross_rank_negatives": False, "false_negative_margin": None, "matryoshka_dims": []}
            found += [
                (name, "does not go with pooling=colbert") for name, no in off.items() if getattr(self, name) != no
            ]
        if any(size < 1 for size in self.matryoshka_dims):
            found.append(("matryoshka_dims", "every size must be > 0"))
        return found


@dataclass(kw_only=True)
class RerankFinetuneConfig(FinetuneConfig):
    """finetune for cross-encoders: listwise softmax over one query's passages."""

    run_dir: str = key("./output/rerank", "Folder that all stages of this run share.", affects_output=False)
    train_data_path: Sources = key(
        "${run_dir}/stage1_prep/train_mined.automodel_unrolled.json",
        "Training rows: a file, a BEIR folder, hf://org/repo[/subset], or a list of those "
        "({path: …, num_samples: …} takes a sample of one).",
        reads="prep",
    )
    val_data_path: Sources | None = key(
        "${run_dir}/stage1_prep/val.json",
        "Validation rows, in any of the same formats; null or an empty file trains without.",
        reads="prep",
        optional_input=True,
    )
    base_model: str = key(
        "nvidia/llama-nemotron-rerank-1b-v2", "Hub id, local folder, or `embedded:all-MiniLM-L6-v2`.", reads="user"
    )
    learning_rate: float = key(3e-6, "Peak learning rate.", gt=0)
    lr_warmup_steps: int = key(100, "Steps of linear warm-up; held below the number of steps.", ge=0)
    loss: Literal["listwise", "pointwise", "margin_mse", "kl"] = key(
        "listwise",
        "`listwise` softmax over a query's passages; `pointwise` yes or no for each; `margin_mse` and `kl` distil the "
        "scores of a teacher that the rows carry.",
    )
    temperature: float = key(1.0, "Scores are divided by this before the softmax.", gt=0)
    num_labels: Literal[1] = key(1, "Scores per pair.")
    pooling: Literal["avg", "weighted_avg", "cls", "last"] = key(
        "avg", "How token vectors become one vector, where the head is ours (a ready reranker keeps its own)."
    )
    rerank_max_length: int = key(512, "Longest query and passage together, in tokens; the passage is cut.", ge=16)
    prompt_template: str | None = key(
        PROMPT_TEMPLATE, "How query and passage become one text; null: the tokenizer's own form for pairs."
    )

    def problems(self) -> list[tuple[str, str]]:
        return super().problems() + template_problems(self.prompt_template)


def template_problems(template: str | None) -> list[tuple[str, str]]:
    """A rerank template must name each of its parts once, the passage last (so that it can be cut)."""
    if template is None:
        return []
    found = []
    for part in ("{query}", "{passage}"):
        if template.count(part) != 1:
            found.append(("prompt_template", f"must name {part} exactly once"))
    return found

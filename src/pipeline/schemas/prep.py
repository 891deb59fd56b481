"""Keys of the prep stage (conversion, split, mining, unrolling)."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.schemas.common import ModelLoading, Precision, StageConfig, TextFormat
from pipeline.schemas.fields import key

RATIO_TOLERANCE = 1e-6


@dataclass(kw_only=True)
class PrepConfig(TextFormat, ModelLoading, StageConfig):
    """Pairs in, a leak-free training set with hard negatives and a BEIR test set out."""

    output_dir: str = key("${run_dir}/stage1_data_prep", "Folder of the training and test files.", affects_output=False)
    corpus_id: str = key("my_corpus", "Name of the corpus, kept in the training files.")
    sdg_input_path: str = key(
        "${run_dir}/stage0_sdg",
        "SDG output: a file or a folder of generated_batch*.json; JSON or JSON Lines.",
        reads="sdg",
    )
    quality_threshold: float = key(7.0, "Judged pairs below this score are dropped; unjudged are kept.", ge=0, le=10)
    train_ratio: float = key(0.8, "Share of the documents for training.", gt=0, lt=1)
    val_ratio: float = key(0.1, "Share of the documents for validation.", ge=0, lt=1)
    test_ratio: float = key(0.1, "Share of the documents for the test set.", ge=0, lt=1)
    max_pos_docs: int = key(
        5, "Most positives of a training row; the rest is cut, counted, never a negative. The test set keeps all.", gt=0
    )
    round_trip_top_k: int | None = key(
        None,
        "Keep a train or val question only if the base model finds a positive in its top k; null keeps all. "
        "The test split is never filtered.",
        gt=0,
    )
    hard_negatives_to_mine: int = key(5, "Hard negatives for each question.", gt=0)
    hard_neg_margin: float = key(0.95, "A negative scores at most positive - (1 - margin) * |positive|.", gt=0, le=1)
    precision: Precision = key("auto", "Type the base model computes in; `auto` takes bf16 where the hardware has it.")
    mining_batch_size: int = key(128, "Queries scored at once.", gt=0, affects_output=False)
    encode_batch_tokens: int = key(
        16384, "Tokens encoded at once, padding included; about 4096 is fastest on a CPU.", gt=0, affects_output=False
    )

    def problems(self) -> list[tuple[str, str]]:
        found = self.remote_code_problems()
        total = self.train_ratio + self.val_ratio + self.test_ratio
        if abs(total - 1) > RATIO_TOLERANCE:
            found.append(("train_ratio", f"train_ratio + val_ratio + test_ratio is {total:g}, must be 1"))
        return found


@dataclass(kw_only=True)
class EmbedPrepConfig(PrepConfig):
    """prep for the embedding family."""


@dataclass(kw_only=True)
class RerankPrepConfig(PrepConfig):
    """prep for the reranking family: mined with an embedding model, another folder name and split."""

    run_dir: str = key("./output/rerank", "Folder that all stages of this run share.", affects_output=False)
    output_dir: str = key("${run_dir}/stage1_prep", "Folder for the training and test files.", affects_output=False)
    val_ratio: float = key(0.0, "Share of the documents for validation.", ge=0, lt=1)
    test_ratio: float = key(0.2, "Share of the documents for the test set.", ge=0, lt=1)

"""Keys of the prep stage (conversion, split, mining, unrolling)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.schemas.common import ModelLoading, Precision, StageConfig, TextFormat
from pipeline.schemas.fields import key
from pipeline.schemas.mining import MiningCompute, MiningKeys

RATIO_TOLERANCE = 1e-6


@dataclass(kw_only=True)
class PrepConfig(MiningCompute, MiningKeys, TextFormat, ModelLoading, StageConfig):
    """Pairs in, a leak-free training set with hard negatives and a BEIR test set out."""

    version: ClassVar[int] = 2

    seed: int = key(42, "Seed of the split and of every draw.", ge=0, aliases=("conversion_seed",))
    output_dir: str = key("${run_dir}/stage1_data_prep", "Folder of the training and test files.", affects_output=False)
    corpus_id: str = key("my_corpus", "Name of the corpus, kept in the training files.")
    sdg_input_path: str | None = key(
        "${run_dir}/stage0_sdg",
        "Records of sdg, labelled pairs or a BEIR folder: a file or a folder; the content says which.",
        reads="sdg",
    )
    train_input_file: str | None = key(
        None,
        "A training file that is converted already ({corpus, data}): it is mined and unrolled, nothing else; "
        "sdg_input_path then does not count.",
        reads="user",
    )
    quality_threshold: float = key(7.0, "Judged pairs below this score are dropped; unjudged are kept.", ge=0, le=10)
    criterion_minimums: dict[str, float] = key(
        {}, "Lowest score of single criteria of the judge, such as {accuracy: 6}; unjudged criteria pass."
    )
    drop_unanswerable: bool = key(
        True, "Drop pairs that sdg's check_answers found unanswerable from their passages; unchecked are kept."
    )
    train_ratio: float = key(0.8, "Share of the documents for training.", gt=0, lt=1)
    val_ratio: float = key(0.1, "Share of the documents for validation.", ge=0, lt=1)
    test_ratio: float = key(0.1, "Share of the documents for the test set.", ge=0, lt=1)
    split_strategy: Literal["random", "dedupped", "cluster"] = key(
        "random",
        "`random`: by document; `dedupped` and `cluster`: groups of groups_json stay together too "
        "(`dedupped` joins groups that overlap).",
    )
    groups_json: list[str] | None = key(None, "Files with groups of documents that belong together.", reads="user")
    near_duplicate_questions: float | None = key(
        0.8,
        "Questions this alike (Jaccard) never stand on two sides; the test set keeps its own. null: off.",
        gt=0,
        le=1,
    )
    frozen_eval: str | None = key(
        None,
        "BEIR folder of an earlier test set: used again as it is; questions on its documents leave the training data.",
        reads="user",
    )
    use_group_id_in_eval: bool = key(True, "Content-hash ids in eval_beir; ids are always stable here.")
    max_pos_docs: int = key(
        5, "Most positives of a training row. The others are never a negative. The test set keeps all.", gt=0
    )
    excess_positives: Literal["truncate", "drop"] = key(
        "truncate", "A training question with more than max_pos_docs positives loses the rest, or is dropped."
    )
    round_trip_top_k: int | None = key(
        None,
        "Keep a train or val question only if the base model finds a positive in its top k; null keeps all. "
        "The test split is never filtered.",
        gt=0,
    )
    precision: Precision = key("auto", "Type the base model computes in; `auto` takes bf16 where the hardware has it.")
    cache_embeddings_dir: str = key(
        "${output_dir}/cache_embeddings",
        "Vectors of earlier runs; one is used again only for the same text, model and contract.",
        affects_output=False,
    )

    def problems(self) -> list[tuple[str, str]]:
        found = self.remote_code_problems() + self.mining_problems()
        total = self.train_ratio + self.val_ratio + self.test_ratio
        if abs(total - 1) > RATIO_TOLERANCE:
            found.append(("train_ratio", f"train_ratio + val_ratio + test_ratio is {total:g}, must be 1"))
        if self.split_strategy != "random" and not self.groups_json:
            found.append(("groups_json", f"split_strategy={self.split_strategy} needs groups_json=[FILE]"))
        if self.split_strategy == "random" and self.groups_json:
            found.append(("groups_json", "needs split_strategy=dedupped or split_strategy=cluster"))
        if not self.sdg_input_path and not self.train_input_file:
            found.append(("sdg_input_path", "set it, or train_input_file"))
        if not self.use_group_id_in_eval:
            found.append(("use_group_id_in_eval", "ids are always content hashes: numbered ones change with every run"))
        return found

    def unused_inputs(self) -> set[str]:
        return {"sdg_input_path"} if self.train_input_file else set()


@dataclass(kw_only=True)
class EmbedPrepConfig(PrepConfig):
    """prep for the embedding family."""


@dataclass(kw_only=True)
class RerankPrepConfig(PrepConfig):
    """prep for the reranking family: mined with an embedding model, another folder name and split."""

    run_dir: str = key("./output/rerank", "Folder that all stages of this run share.", affects_output=False)
    output_dir: str = key("${run_dir}/stage1_prep", "Folder for the training and test files.", affects_output=False)
    base_model: str = key(
        "nvidia/llama-nemotron-embed-1b-v2",
        "The embedding model that mines: hub id, local folder, or `embedded:all-MiniLM-L6-v2`.",
        reads="user",
        optional_input=True,
    )
    fallback_base_model: str | None = key(
        None, "Mines where base_model is a folder that does not exist yet.", reads="user"
    )
    val_ratio: float = key(0.0, "Share of the documents for validation.", ge=0, lt=1)
    test_ratio: float = key(0.2, "Share of the documents for the test set.", ge=0, lt=1)

"""Keys of `pipeline data mine`: hard negatives for a training file that exists already."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.schemas.common import Attention, Device, Precision
from pipeline.schemas.fields import key
from pipeline.schemas.mining import MiningCompute, MiningKeys

NO_FROZEN_EVAL = "off"
KEPT_WITH_THE_MODEL = ("pooling", "l2_normalize")
"""Keys that a person may expect here and that only the checkpoint itself may say."""


@dataclass(kw_only=True)
class MineConfig(MiningCompute, MiningKeys):
    """A training file in, the same rows with hard negatives of another model out."""

    seed: int = key(42, "Seed of every draw.", ge=0)
    model_name_or_path: str | None = key(
        None, "The embedding model that mines: hub id, folder, run directory or its checkpoints (LATEST is followed)."
    )
    model_revision: str | None = key(None, "Commit of the hub model; required with trust_remote_code.")
    tokenizer_name_or_path: str | None = key(None, "Another tokenizer than the model's own.")
    trust_remote_code: bool = key(False, "Run Python code that ships with the model. Needs a pinned revision.")
    attn_implementation: Attention | None = key(None, "Attention kernel; null picks one.")
    device: Device = key("auto", "Where to compute.")
    precision: Precision = key("auto", "Type the model computes in.")
    train_qa_file_path: str | None = key(None, "The training file: {corpus, data} over one corpus.")
    train_file_output_path: str | None = key(None, "Where the mined file goes.")
    overwrite_output: bool = key(False, "Replace a file that is there already.")
    cache_embeddings_dir: str | None = key(
        None, "Folder of vectors; several machines need a shared one. null: `.cache_embeddings` beside the output."
    )
    load_embeddings_from_cache: bool = key(
        False, "Use vectors of earlier runs too; false encodes anew (an interrupted run always goes on)."
    )
    query_prefix: str = key("", "Put before every query, verbatim; a checkpoint of ours has its own.")
    passage_prefix: str = key("", "Put before every passage, verbatim; a checkpoint of ours has its own.")
    query_max_length: int = key(512, "Longest query in tokens; a checkpoint of ours has its own.", ge=8)
    passage_max_length: int = key(512, "Longest passage in tokens; a checkpoint of ours has its own.", ge=8)
    add_bos_token: bool | None = key(None, "Begin every text with the tokenizer's first token; null: as it does.")
    add_eos_token: bool | None = key(None, "End every text with the tokenizer's last token; null: as it does.")
    query_embedding_batch_size: int | None = key(
        None, "Most queries encoded at once; null: encode_batch_tokens alone decides.", gt=0
    )
    document_embedding_batch_size: int | None = key(
        None, "Most passages encoded at once; null: encode_batch_tokens alone decides.", gt=0
    )
    hard_negatives_to_mine: int = key(20, "Hard negatives for each question.", gt=0)
    frozen_eval: str | None = key(
        None,
        "BEIR folder of the test set: passages that answer its questions become nobody's negatives. null: `eval_beir` "
        "beside the training file, if there; `off`: none.",
    )
    use_negatives_from_file: bool = key(False, "Keep the negatives of the file, before those that are mined.")

    def problems(self) -> list[tuple[str, str]]:
        needed = ("model_name_or_path", "train_qa_file_path", "train_file_output_path")
        found = [(name, "must be set") for name in needed if not getattr(self, name)]
        if self.trust_remote_code and not self.model_revision:
            found.append(("trust_remote_code", "needs model_revision=COMMIT: code that may change is never run"))
        return found + self.mining_problems()

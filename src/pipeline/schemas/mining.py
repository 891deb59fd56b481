"""Keys of hard-negative mining: what `prep` and `pipeline data mine` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.schemas.fields import key


@dataclass(kw_only=True)
class MiningKeys:
    """Which passages become hard negatives of a question, and what that may cost."""

    hard_negatives_to_mine: int = key(5, "Hard negatives for each question.", gt=0)
    hard_neg_margin: float | None = key(
        0.95,
        "Ceiling of a negative. `perc`: positive - (1 - margin) * |positive|; `abs`: positive - margin. null: none.",
        ge=0,
        le=2,
    )
    hard_neg_margin_type: Literal["perc", "abs"] = key("perc", "How hard_neg_margin is meant.")
    negative_min_score: float | None = key(None, "No negative scores below; null: no floor.")
    negative_max_score: float | None = key(None, "No negative scores above, whatever the margin; null: no ceiling.")
    negative_rank_min: int = key(
        1, "First rank that may be a negative; 1 is the nearest passage that is no positive.", ge=1
    )
    negative_rank_max: int | None = key(None, "Last rank that may be a negative; null: no end.", ge=1)
    negative_sampling: Literal["top", "random"] = key(
        "top", "`top`: the hardest that are left; `random`: drawn from all up to negative_rank_max."
    )
    bm25_share: float = key(0.0, "Share of the negatives that come from BM25 instead of the vectors.", ge=0, le=1)
    exclude_answers: bool = key(True, "No negative contains the answer of the question word for word.")
    near_duplicate_threshold: float | None = key(
        0.8,
        "Two texts with this share of common word sequences (Jaccard) count as one: no negative repeats a positive. "
        "null: off.",
        gt=0,
        le=1,
    )
    rescore: Literal["none", "cross_encoder", "llm"] = key(
        "none", "Let a reranker or an LLM look for right answers among the nearest passages."
    )
    rescore_model: str | None = key(None, "The reranker (hub id or folder) or the LLM's name.")
    rescore_top: int = key(10, "Nearest passages of a question that are rescored, those above the margin too.", gt=0)
    rescore_threshold: float = key(0.5, "From this probability on a passage counts as an answer.", gt=0, lt=1)
    rescore_action: Literal["drop", "promote"] = key(
        "drop", "An answer that was found is no negative (`drop`), or becomes a positive too (`promote`)."
    )
    rescore_base_url: str | None = key(None, "Address of the LLM's OpenAI-compatible API.")
    rescore_api_key_env: str | None = key(
        None, "Environment variable that holds the key of that API.", affects_output=False
    )
    allow_remote: Literal["yes", "no"] = key(
        "no", "May texts leave this machine for rescoring? Loopback addresses are always allowed.", affects_output=False
    )
    fill_short_rows: bool = key(False, "Fill up rows short of negatives with passages drawn at random.")

    def mining_problems(self) -> list[tuple[str, str]]:
        found = []
        perc = self.hard_neg_margin is not None and self.hard_neg_margin_type == "perc"
        if perc and not 0 < self.hard_neg_margin <= 1:
            found.append(("hard_neg_margin", "must be > 0 and <= 1 for hard_neg_margin_type=perc"))
        if self.negative_rank_max is not None and self.negative_rank_max < self.negative_rank_min:
            found.append(("negative_rank_max", f"must be >= negative_rank_min ({self.negative_rank_min})"))
        if self.negative_sampling == "random" and self.negative_rank_max is None:
            found.append(("negative_sampling", "random needs negative_rank_max: where to draw from"))
        low, high = self.negative_min_score, self.negative_max_score
        if low is not None and high is not None and low > high:
            found.append(("negative_min_score", f"must be <= negative_max_score ({high:g})"))
        if self.rescore != "none" and not self.rescore_model:
            found.append(("rescore_model", f"rescore={self.rescore} needs a model"))
        if self.rescore == "llm" and not self.rescore_base_url:
            found.append(("rescore_base_url", "rescore=llm needs the address of an API"))
        return found


@dataclass(kw_only=True)
class MiningCompute:
    """Speed and memory of mining; nothing here but `ann_above` changes a result."""

    mining_batch_size: int = key(128, "Queries scored at once.", gt=0, affects_output=False)
    encode_batch_tokens: int | None = key(
        None,
        "Tokens encoded at once, padding included; null: 2048 on a CPU, 16384 on a GPU.",
        gt=0,
        affects_output=False,
    )
    corpus_chunk_size: int = key(50000, "Passages scored at once.", gt=0, affects_output=False)
    ann_above: int | None = key(
        None, "Search corpora with more passages approximately (faiss); null: always exactly.", gt=0
    )
    nproc_per_node: int | Literal["gpu"] = key(
        1, "Processes that encode and search, through torchrun; `gpu`: one for each GPU.", ge=1, affects_output=False
    )
    dist_timeout_minutes: int = key(30, "How long processes wait for each other.", gt=0, affects_output=False)

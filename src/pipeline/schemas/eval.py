"""Keys of the eval stage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.schemas.common import ModelLoading, Precision, StageConfig, TextFormat
from pipeline.schemas.fields import key
from pipeline.schemas.finetune import PROMPT_TEMPLATE, template_problems

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_OWN_FOLDERS = ("logs", "cache_embeddings")
"""Folders of the stage that no test set may take."""


@dataclass(kw_only=True)
class EvalConfig(ModelLoading, StageConfig):
    """Test sets and models in, a comparison with confidence out."""

    version: ClassVar[int] = 2

    output_dir: str = key("${run_dir}/stage3_eval", "Folder for the results.", affects_output=False)
    finetuned_model_path: str = key(
        "${run_dir}/stage2_finetune/checkpoints/LATEST/model/consolidated",
        "The tuned model.",
        reads="finetune",
        optional_input=True,
    )
    eval_data_path: str = key(
        "${run_dir}/stage1_data_prep/eval_beir", "BEIR folder of the main test set.", reads="prep"
    )
    eval_data_name: str = key("synthetic", "Name of the main test set in tables, comparisons and file names.")
    question_sets: dict[str, str] = key(
        {}, "Human-style test sets by name: questions.jsonl files with _id, text, doc, quote.", reads="user"
    )
    question_sets_corpus: str | None = key(
        None,
        "The document folder the question sets were written for; with any other corpus_dir they are skipped. "
        "null: they must fit this run's passages.",
    )
    test_sets: dict[str, str] = key({}, "Further test sets by name: BEIR folders, each with its corpus.", reads="user")
    guard_sets: dict[str, str] = key(
        {}, "BEIR folders by name that show what training made the model forget; reported apart.", reads="user"
    )
    corpus_dir: str = key(
        "./data/corpus",
        "The documents of this run, to know whether the question sets belong to them.",
        affects_output=False,
    )
    k_values: list[int] = key([1, 5, 10, 100], "Cut-offs of the metrics.")
    eval_base: bool = key(True, "Measure the base model.")
    eval_finetuned: bool = key(True, "Measure the tuned model.")
    eval_bm25: bool = key(True, "Measure BM25, the word-matching yardstick.")
    bm25_fields: Literal["separate", "joined"] = key(
        "separate",
        "BM25 of title and text: `separate` scores each and adds, as BEIR publishes it; `joined` reads one text.",
    )
    eval_hybrid: bool = key(True, "Measure BM25 and the embedding model fused by rank, where both are measured.")
    candidates: Literal["dense", "hybrid"] = key(
        "dense", "Whose passages rerankers put in order: the embedding model's, or the hybrid ranking's."
    )
    eval_nim: bool = key(False, "Measure a served model over HTTP; always anew.", affects_output=False)
    nim_url: str = key("http://localhost:8000", "Address of the served model.", affects_output=False)
    nim_urls: dict[str, str] = key(
        {},
        "Addresses of several services by name, each a system nim@NAME under the same nim_* keys; nim_url is measured "
        "beside them only where it is set too.",
        affects_output=False,
    )
    nim_model: str | None = key(None, "Name of the served model; null takes it from /v1/models.", affects_output=False)
    nim_batch_size: int = key(32, "Texts per request.", gt=0, affects_output=False)
    nim_timeout: float = key(60.0, "Seconds to wait for one reply.", gt=0, affects_output=False)
    nim_max_retries: int = key(3, "Repeats of a failed request, with back-off.", ge=0, affects_output=False)
    nim_concurrency: int = key(4, "Requests at once.", gt=0, affects_output=False)
    nim_truncate: Literal["NONE", "START", "END"] = key(
        "END", "What the service does with texts that are too long.", affects_output=False
    )
    nim_api_key_env: str | None = key(
        None, "Environment variable with the service's API key; null: it needs none.", affects_output=False
    )
    nim_metric_tolerance: float = key(0.01, "Largest difference to the checkpoint for k >= 5.", ge=0)
    nim_metric_low_k_tolerance: float = key(0.03, "Largest difference to the checkpoint for k < 5.", ge=0)
    fail_on_nim_metric_drift: bool = key(
        False, "Exit with an error, after saving, when the served model drifts.", affects_output=False
    )
    batch_tokens: int | None = key(
        None, "Tokens encoded at once; null: as suits the machine.", gt=0, affects_output=False
    )
    corpus_chunk_size: int = key(50000, "Passages scored at once.", gt=0, affects_output=False)
    nproc_per_node: int | Literal["gpu"] = key(
        1,
        "Processes that share what models compute, through torchrun; `gpu`: one for each GPU.",
        ge=1,
        affects_output=False,
    )
    dist_timeout_minutes: int = key(30, "How long processes wait for each other.", gt=0, affects_output=False)
    cache_embeddings_dir: str = key(
        "${output_dir}/cache_embeddings",
        "Vectors of earlier runs; one is used again only for the same text, model and contract.",
        affects_output=False,
    )
    cache_max_gb: float = key(
        20.0,
        "What that folder may take after a run, in GB of 10**9 bytes: vectors this run did not use go, the longest "
        "unused first.",
        ge=0,
        affects_output=False,
    )
    precision: Precision = key("auto", "Compute type; `auto` takes bf16 where the hardware has it.")
    bootstrap_samples: int = key(10000, "Resamples for confidence intervals and p-values.", ge=100)
    fail_on_regression: bool = key(
        False,
        "Exit with an error, after saving, when the tuned model is worse on any test set: than the base, or a reranker "
        "than the first stage alone.",
    )

    def problems(self) -> list[tuple[str, str]]:
        found = self.remote_code_problems()
        if not self.k_values or any(k < 1 for k in self.k_values):
            found.append(("k_values", "needs at least one cut-off, each >= 1"))
        found += self._set_name_problems()
        found += [
            ("nim_urls", f"{name!r} names a system: letters, digits, - and _ only")
            for name in self.nim_urls
            if not _NAME.fullmatch(name)
        ]
        if self.candidates == "hybrid" and not (self.eval_hybrid and self.eval_bm25):
            found.append(("candidates", "hybrid needs eval_hybrid=true and eval_bm25=true"))
        if self.fail_on_nim_metric_drift and not self.eval_nim:
            found.append(("fail_on_nim_metric_drift", "needs eval_nim=true"))
        return found

    def variants(self) -> list[str]:
        """Forms of the embedding model's vectors that are measured beside the full ones."""
        return []

    def _set_name_problems(self) -> list[tuple[str, str]]:
        found, known = [], {self.eval_data_name: "eval_data_name"}
        by_key = {"eval_data_name": [self.eval_data_name]}
        by_key |= {name: list(getattr(self, name)) for name in ("question_sets", "test_sets", "guard_sets")}
        for key_name, names in by_key.items():
            for name in names:
                if not _NAME.fullmatch(name) or name in _OWN_FOLDERS:
                    taken = ", ".join(_OWN_FOLDERS)
                    found.append((key_name, f"{name!r} names a folder: letters, digits, - and _ only; not {taken}"))
                if known.setdefault(name, key_name) != key_name:
                    found.append((key_name, f"{name} is the name of another test set ({known[name]})"))
        return found


@dataclass(kw_only=True)
class EmbedEvalConfig(TextFormat, EvalConfig):
    """eval for bi-encoders: full-corpus retrieval."""

    reranker_model: str | None = key(
        None, "A reranker that puts the embedding model's candidates in a new order, as a system.", reads="user"
    )
    top_k: int = key(100, "Candidates that reranker_model puts in a new order.", gt=0)
    dims: list[int] = key(
        [], "Also measure the vectors cut to their first numbers, a system for each size, such as [384,128,64]."
    )
    quantized: list[Literal["int8", "binary"]] = key(
        [], "Also measure the vectors with less for each number, a system for each form: int8, binary."
    )
    nim_api: Literal["nim", "openai", "vllm", "tei"] = key(
        "nim",
        "The API of the service: NIM or `pipeline embed deploy`; any OpenAI-compatible one; vLLM's /v2/embed; Text "
        "Embeddings Inference.",
        affects_output=False,
    )
    nim_prefixes: Literal["auto", "server", "client"] = key(
        "auto",
        "Who puts the model's prefixes before the texts; auto: nim and vllm do it themselves, openai and tei do not.",
        affects_output=False,
    )
    nim_embedding_dimension: int | None = key(
        None, "Dimension that the vectors must have; null: that of the first reply.", gt=0, affects_output=False
    )
    max_length: int | None = key(None, "Sets query_max_length and passage_max_length at once.", ge=8)

    def problems(self) -> list[tuple[str, str]]:
        found = super().problems() + (_depth_problems(self) if self.reranker_model else [])
        if any(size < 1 for size in self.dims):
            found.append(("dims", "every size must be > 0"))
        for name in ("dims", "quantized"):
            said = getattr(self, name)
            found += [(name, f"names {item} twice") for item in sorted({x for x in said if said.count(x) > 1})]
        return found

    def variants(self) -> list[str]:
        return [*map(str, self.dims), *self.quantized]


@dataclass(kw_only=True)
class RerankEvalConfig(EvalConfig):
    """eval for cross-encoders: the candidates of a first stage, put in a new order."""

    run_dir: str = key("./output/rerank", "Folder that all stages of this run share.", affects_output=False)
    eval_data_path: str = key("${run_dir}/stage1_prep/eval_beir", "BEIR folder of the main test set.", reads="prep")
    base_model: str = key(
        "nvidia/llama-nemotron-rerank-1b-v2", "Hub id, local folder, or `embedded:all-MiniLM-L6-v2`.", reads="user"
    )
    retrieval_model: str = key(
        "nvidia/llama-nemotron-embed-1b-v2", "First-stage embedding model.", reads="user", optional_input=True
    )
    base_retrieval_model: str | None = key(
        None,
        "The first stage before its training, measured for comparison; it stands in where retrieval_model is missing.",
        reads="user",
    )
    query_prefix: str = key("query: ", "Put before every query of the first stage, verbatim.")
    passage_prefix: str = key("passage: ", "Put before every passage of the first stage, verbatim.")
    retrieval_max_length: int = key(512, "Longest query and longest passage of the first stage, in tokens.", ge=8)
    retrieval_normalize: bool = key(True, "Scale first-stage vectors to length one.")
    top_k: int = key(100, "First-stage candidates that are put in a new order.", gt=0)
    max_length: int = key(512, "Longest query and passage together, in tokens.", ge=16)
    prompt_template: str | None = key(
        PROMPT_TEMPLATE, "How query and passage become one text; null: the tokenizer's own form for pairs."
    )
    pooling: Literal["avg", "weighted_avg", "cls", "last"] = key(
        "avg", "How the token vectors of a base model without a head become one vector."
    )
    nim_api: Literal["nim", "cohere", "tei"] = key(
        "nim",
        "The API of the service: NIM or `pipeline rerank deploy`; /v1/rerank of Cohere, Jina or vLLM; Text Embeddings "
        "Inference.",
        affects_output=False,
    )

    def problems(self) -> list[tuple[str, str]]:
        return super().problems() + template_problems(self.prompt_template) + _depth_problems(self)


def _depth_problems(config: EmbedEvalConfig | RerankEvalConfig) -> list[tuple[str, str]]:
    """What lies below the candidates has no place in a new order."""
    if config.k_values and config.top_k < max(config.k_values):
        return [("top_k", f"must be >= the largest of k_values ({max(config.k_values)})")]
    return []

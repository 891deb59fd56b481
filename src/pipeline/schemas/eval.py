"""Keys of the eval stage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.schemas.common import ModelLoading, Precision, StageConfig, TextFormat
from pipeline.schemas.fields import key
from pipeline.schemas.finetune import PROMPT_TEMPLATE, template_problems

_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(kw_only=True)
class EvalConfig(ModelLoading, StageConfig):
    """Test sets and models in, a comparison with confidence out."""

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
    corpus_dir: str = key(
        "./data/corpus",
        "The documents of this run, to know whether the question sets belong to them.",
        affects_output=False,
    )
    k_values: list[int] = key([1, 5, 10, 100], "Cut-offs of the metrics.")
    eval_base: bool = key(True, "Measure the base model.")
    eval_finetuned: bool = key(True, "Measure the tuned model.")
    eval_bm25: bool = key(True, "Measure BM25, the word-matching yardstick.")
    eval_nim: bool = key(False, "Measure a served model over HTTP; always anew.", affects_output=False)
    nim_url: str = key("http://localhost:8000", "Address of the served model.", affects_output=False)
    nim_model: str | None = key(None, "Name of the served model; null takes it from /v1/models.", affects_output=False)
    nim_batch_size: int = key(32, "Texts per request.", gt=0, affects_output=False)
    nim_timeout: float = key(60.0, "Seconds to wait for one reply.", gt=0, affects_output=False)
    nim_max_retries: int = key(3, "Repeats of a failed request, with back-off.", ge=0, affects_output=False)
    nim_metric_tolerance: float = key(0.01, "Largest difference to the checkpoint for k >= 5.", ge=0)
    nim_metric_low_k_tolerance: float = key(0.03, "Largest difference to the checkpoint for k < 5.", ge=0)
    fail_on_nim_metric_drift: bool = key(
        False, "Exit with an error, after saving, when the served model drifts.", affects_output=False
    )
    batch_tokens: int = key(16384, "Tokens encoded at once.", gt=0, affects_output=False)
    corpus_chunk_size: int = key(50000, "Passages scored at once.", gt=0, affects_output=False)
    precision: Precision = key("auto", "Compute type; `auto` takes bf16 where the hardware has it.")
    bootstrap_samples: int = key(10000, "Resamples for confidence intervals and p-values.", ge=100)
    fail_on_regression: bool = key(False, "Exit with an error, after saving, when the tuned model is worse.")

    def problems(self) -> list[tuple[str, str]]:
        found = self.remote_code_problems()
        if not self.k_values or any(k < 1 for k in self.k_values):
            found.append(("k_values", "needs at least one cut-off, each >= 1"))
        for key_name, names in (("eval_data_name", [self.eval_data_name]), ("question_sets", self.question_sets)):
            bad = [name for name in names if not _SET_NAME.fullmatch(name) or name == "logs"]
            if bad:
                found.append((key_name, f"{bad[0]!r} names a folder: letters, digits, - and _ only, and not `logs`"))
        if self.eval_data_name in self.question_sets:
            found.append(("question_sets", f"{self.eval_data_name} is the name of the main test set (eval_data_name)"))
        if self.fail_on_nim_metric_drift and not self.eval_nim:
            found.append(("fail_on_nim_metric_drift", "needs eval_nim=true"))
        return found


@dataclass(kw_only=True)
class EmbedEvalConfig(TextFormat, EvalConfig):
    """eval for bi-encoders: full-corpus retrieval."""

    max_length: int | None = key(None, "Sets query_max_length and passage_max_length at once.", ge=8)


@dataclass(kw_only=True)
class RerankEvalConfig(EvalConfig):
    """eval for cross-encoders: the candidates of a first stage, put in a new order."""

    run_dir: str = key("./output/rerank", "Folder that all stages of this run share.", affects_output=False)
    eval_data_path: str = key("${run_dir}/stage1_prep/eval_beir", "BEIR folder of the main test set.", reads="prep")
    base_model: str = key(
        "nvidia/llama-nemotron-rerank-1b-v2", "Hub id, local folder, or `embedded:all-MiniLM-L6-v2`.", reads="user"
    )
    retrieval_model: str = key("nvidia/llama-nemotron-embed-1b-v2", "First-stage embedding model.", reads="user")
    query_prefix: str = key("query: ", "Put before every query of the first stage, verbatim.")
    passage_prefix: str = key("passage: ", "Put before every passage of the first stage, verbatim.")
    retrieval_normalize: bool = key(True, "Scale first-stage vectors to length one.")
    top_k: int = key(100, "First-stage candidates that are put in a new order.", gt=0)
    max_length: int = key(512, "Longest query and passage together, in tokens.", ge=16)
    prompt_template: str = key(PROMPT_TEMPLATE, "How query and passage become one text.")
    nim_truncate: Literal["NONE", "START", "END"] = key("END", "What the service does with texts that are too long.")

    def problems(self) -> list[tuple[str, str]]:
        found = super().problems() + template_problems(self.prompt_template)
        if self.k_values and self.top_k < max(self.k_values):
            found.append(("top_k", f"must be >= the largest of k_values ({max(self.k_values)})"))
        return found

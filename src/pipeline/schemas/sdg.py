"""Keys of the sdg stage (synthetic data generation)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pipeline.schemas.common import StageConfig
from pipeline.schemas.fields import key

QUERY_TYPES = ("multi_hop", "structural", "contextual")
QUERY_STYLES = ("question", "keyword", "short", "typo", "persona")
REASONING_TYPES = ("factual", "relational", "inferential", "temporal", "procedural", "visual", "causal")
_TAKEN = ("rejected", "coverage", "generated_batch")
"""Beginnings of other files of the stage."""
CHAT_MODEL = "nvidia/nemotron-3-nano-30b-a3b"
EMBED_MODEL = "nvidia/llama-3.2-nv-embedqa-1b-v2"

_PROVIDER = (
    "`nvidia`, `openai`, `openrouter`, `vllm`, `ollama`, `embedded` (a small LLM from PyPI, here), or a name of your "
    "own with base_url."
)


@dataclass(kw_only=True)
class SdgConfig(StageConfig):
    """Documents in, judged question–answer pairs out."""

    version: ClassVar[int] = 2

    output_dir: str = key("${run_dir}/stage0_sdg", "Folder for the generated records.", affects_output=False)
    corpus_id: str = key("my_corpus", "Name of the corpus, kept in the training files.")
    corpus_dir: str = key(
        "./data/corpus",
        "Folder with your documents, read recursively, or hf://org/dataset[@revision][/folder].",
        reads="user",
    )
    file_extensions: str = key(
        ".txt,.md,.text,", "Comma list of extensions; a trailing comma takes files without extension too."
    )
    num_files: int | None = key(None, "Only the first N matching files, sorted by path.", gt=0)
    min_text_length: int = key(50, "Shorter documents (in characters) are skipped.", ge=0)

    text_column: str | None = key(None, "Column of JSONL and CSV files that holds the text; null finds it.")

    chunking: Literal["sentences", "tokens", "none"] = key(
        "sentences",
        "`sentences`: passages of whole sentences; `tokens`: of chunk_tokens; `none`: each file or row is one.",
    )
    sentences_per_chunk: int = key(5, "Sentences in one passage.", gt=0)
    chunk_tokens: int = key(256, "Tokens in one passage (`tokens`).", ge=16)
    chunk_overlap: int = key(32, "Tokens that a passage shares with the one before (`tokens`).", ge=0)
    chunk_tokenizer: str | None = key(None, "A tokenizer.json to count with; null: that of the embedded MiniLM.")
    language: str = key("en", "Language of the documents, for the sentence rules.")

    multi_doc: bool = key(False, "Write questions over bundles of documents: one record for each bundle.")
    bundle_size: int = key(2, "Documents in a bundle that is made automatically.", gt=0)
    max_docs_per_bundle: int = key(3, "Most documents in one bundle; a larger one is an error.", gt=0)
    bundle_by: Literal["path", "similarity"] = key(
        "path", "Which documents make a bundle: neighbours in the order of paths, or those that say similar things."
    )
    bundle_strategy: Literal["sequential", "doc_balanced", "interleaved"] = key(
        "sequential", "Order of a bundle's passages: one document after the other, a share of each, or in turn."
    )
    multi_doc_manifest: str | None = key(
        None,
        "JSON or YAML file that says which documents belong together; the others are bundled automatically.",
        reads="user",
    )
    num_sections: int = key(1, "Blocks in which the passages are shown to the LLM.", gt=0)
    window_chunks: int | None = key(
        None, "Passages shown to the LLM in one call; null shows the whole document at once.", gt=0
    )
    window_tokens: int | None = key(
        None, "Tokens shown to the LLM in one call: longer documents become several windows; null: no limit.", gt=0
    )
    max_windows: int | None = key(
        None,
        "Most windows asked about, spread evenly over the corpus; null asks about all. Every passage stays "
        "in the corpus.",
        gt=0,
    )

    qa_format: Literal["full", "questions"] = key(
        "full",
        "`full`: typed pairs with hops, for capable models; `questions`: one plain question for each of the "
        "richest sentences of a window, for very small models. The answer is then the sentence.",
    )
    artifacts: bool = key(True, "First extract concepts, entities and terms, then ask about them (`full` only).")
    max_artifacts_per_type: int = key(2, "Artifacts kept for each of the 8 types.", gt=0)
    num_pairs: int = key(10, "Question–answer pairs asked for in one call (one document, or one window of it).", gt=0)
    query_counts: dict[str, int] = key(
        {"multi_hop": 3, "structural": 2, "contextual": 2}, "Share of each query type; rescaled to num_pairs."
    )
    reasoning_counts: dict[str, int] = key(
        {name: 1 for name in REASONING_TYPES}, "Share of each reasoning type; rescaled to num_pairs."
    )
    visual: bool = key(False, "Ask for `visual` questions too: the documents describe figures, screens or diagrams.")
    query_styles: dict[str, int] = key(
        {"question": 1}, "Share of each style: question, keyword, short, typo, persona; rescaled to num_pairs."
    )
    personas: list[str] = key([], "Who asks in the style `persona`; empty: the model thinks of somebody.")
    prompt_profile: str = key(
        "default",
        "Which prompts: a profile of the stage, or a folder with templates of your own.",
        reads="user",
        or_name=True,
    )
    prompt_profiles: dict[str, str] = key(
        {},
        "Other prompts for some documents: pattern of the path -> profile, such as {.rst: reference}.",
        reads="user",
        or_name=True,
    )
    min_hops: int = key(1, "Fewest passages a multi-hop question connects.", ge=1)
    max_hops: int = key(3, "Most passages a multi-hop question connects.", ge=1)
    min_complexity: int = key(2, "Lowest difficulty asked for.", ge=1, le=5)
    similarity_threshold: float = key(0.9, "Questions more alike than this are dropped as duplicates.", ge=0, le=1)
    quality_judge: Literal["llm", "none"] = key(
        "llm", "`llm`: a model scores every pair; `none`: pairs stay unjudged (score null), kept and counted."
    )

    check_answers: bool = key(False, "Let a model answer from the cited passages alone; unanswerable pairs are marked.")
    hop_check: Literal["off", "keep", "relabel", "drop"] = key(
        "off", "Does a multi-hop pair need all its hops? `relabel` or `drop` those that do not."
    )
    pooled_judging: int = key(
        0,
        "Passages of the corpus, found by several systems, that the judge looks at for more right answers; 0: off.",
        ge=0,
    )

    provider: str | None = key(None, "Sets the provider of every role at once. " + _PROVIDER)
    base_url: str | None = key(None, "Address of an OpenAI-compatible API, for every role.")
    nvidia_api_key: str | None = key(
        None,
        "Key of the API. Better: the environment variable NVIDIA_API_KEY.",
        secret_env="NVIDIA_API_KEY",
        affects_output=False,
    )
    api_key_env: str | None = key(
        None, "Environment variable that holds the key; null picks it by provider.", affects_output=False
    )
    allow_remote: Literal["ask", "yes", "no"] = key(
        "ask",
        "May document text leave this machine? `ask` asks on a terminal and refuses elsewhere.",
        affects_output=False,
    )
    artifact_extraction_model: str = key(CHAT_MODEL, "LLM that extracts artifacts.")
    artifact_extraction_provider: str = key("nvidia", _PROVIDER)
    qa_generation_model: str = key(CHAT_MODEL, "LLM that writes the pairs.")
    qa_generation_provider: str = key("nvidia", _PROVIDER)
    quality_judge_model: str = key(CHAT_MODEL, "LLM that judges the pairs.")
    quality_judge_provider: str = key("nvidia", _PROVIDER)
    embed_model: str | None = key(
        EMBED_MODEL,
        "Embedding model for finding duplicate questions; null compares their words (BM25 weights) instead.",
    )
    embed_provider: str = key("nvidia", _PROVIDER + " `local`: an encoder in this process (extra `local`).")

    repair: bool = key(True, "Tell the model once what was wrong with an answer and let it mend it.")
    temperature: float = key(0.6, "Sampling temperature.", ge=0, le=2)
    top_p: float = key(0.95, "Nucleus sampling.", gt=0, le=1)
    max_tokens: int | None = key(None, "Longest answer of the LLM in tokens.", gt=0)
    timeout: float = key(120.0, "Seconds to wait for one answer.", gt=0, affects_output=False)
    max_retries: int = key(
        3, "Repeats of a call that failed in transport (back-off, Retry-After).", ge=0, affects_output=False
    )
    max_parallel_requests_for_gen: int = key(4, "Calls under way at once.", gt=0, affects_output=False)
    requests_per_minute: int | None = key(None, "Most calls a minute; null: no limit.", gt=0, affects_output=False)
    max_tokens_total: int | None = key(
        None, "Stop cleanly before more tokens than this are used.", gt=0, affects_output=False
    )
    max_cost: float | None = key(
        None, "Stop cleanly before more money than this is spent; needs prices.", gt=0, affects_output=False
    )
    prices: dict[str, Any] = key(
        {}, "Price of a million tokens: {input: 0.1, output: 0.4}, or such by role.", affects_output=False
    )
    redact: list[str] = key([], "Taken out of texts that leave the machine: email, phone, key, or regex:PATTERN.")
    batch_api: bool = key(False, "Use the provider's batch API: cheaper, slower.", affects_output=False)
    resume: Literal["never", "always", "if_possible"] = key(
        "if_possible",
        "Use answers of earlier runs: `never` asks anew, `always` insists that there are some.",
        affects_output=False,
    )
    batch_size: int = key(200, "Documents per generated_batch file.", gt=0)
    dataset_name: str | None = key(None, "Name of the JSON Lines file with all records; null: corpus_id.")
    shard: str | None = key(
        None, "I/N: only the I-th of N parts of the corpus, into a folder of its own; a run without it merges them."
    )
    preview: bool = key(False, "Make one record, show it, and write nothing but `preview/`.")
    embedded_threads: int | None = key(
        None, "Threads of the embedded LLM; null takes all cores.", gt=0, affects_output=False
    )

    @property
    def shard_of(self) -> tuple[int, int] | None:
        """(number from 1, how many) of `shard`.

        Raises:
            ValueError: it is not of that form.
        """
        if self.shard is None:
            return None
        number, _, total = self.shard.partition("/")
        if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
            raise ValueError("expected I/N with I from 1 to N, such as 1/8")
        return int(number), int(total)

    @property
    def dataset(self) -> str:
        """Name of the file with all records."""
        return self.dataset_name or re.sub(r"[^\w.-]+", "_", self.corpus_id).strip(".") or "records"

    def folder(self) -> str:
        """A shard and a preview have folders of their own, so that nothing else is touched."""
        if self.preview:
            return f"{self.output_dir}/preview"
        if shard := self.shard_of:
            return f"{self.output_dir}/shards/{shard[0]}-of-{shard[1]}"
        return self.output_dir

    def problems(self) -> list[tuple[str, str]]:
        found = []
        try:
            _ = self.shard_of
        except ValueError as error:
            found.append(("shard", str(error)))
        if not re.fullmatch(r"\w[\w.-]*", self.dataset) or self.dataset.startswith(_TAKEN):
            found.append(
                (
                    "dataset_name",
                    "must be a plain file name (letters, digits, dot, dash, underscore) that no other file has",
                )
            )
        if self.shard and self.resume == "never":
            found.append(("resume", "never is not for shards: delete the shard's folder to ask anew"))
        for name in ("multi_doc_manifest", "bundle_by"):
            if getattr(self, name) not in (None, "path") and not self.multi_doc:
                found.append((name, "needs multi_doc=true"))
        if self.bundle_size > self.max_docs_per_bundle:
            found.append(("bundle_size", f"must be <= max_docs_per_bundle ({self.max_docs_per_bundle})"))
        if self.min_hops > self.max_hops:
            found.append(("min_hops", f"must be <= max_hops ({self.max_hops})"))
        for name, allowed in (
            ("query_counts", QUERY_TYPES),
            ("reasoning_counts", REASONING_TYPES),
            ("query_styles", QUERY_STYLES),
        ):
            counts = getattr(self, name)
            unknown = sorted(set(counts) - set(allowed))
            if unknown:
                found.append((name, f"unknown type {', '.join(unknown)}; allowed: {', '.join(allowed)}"))
            if any(count < 0 for count in counts.values()) or not sum(counts.values()):
                found.append((name, "counts must be >= 0 and not all zero"))
        return found


@dataclass(kw_only=True)
class EmbedSdgConfig(SdgConfig):
    """sdg for the embedding family."""


@dataclass(kw_only=True)
class RerankSdgConfig(SdgConfig):
    """sdg for the reranking family: the same keys, another run directory."""

    run_dir: str = key("./output/rerank", "Folder that all stages of this run share.", affects_output=False)

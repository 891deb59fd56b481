"""sdg: documents in, judged question–answer pairs out."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.sdg import SdgConfig
from pipeline_sdg import documents, output
from pipeline_sdg.chunking import Passage, Window, chunk_document, coverage, spread, title_of, windows_of
from pipeline_sdg.documents import Document, Survey
from pipeline_sdg.endpoints import ARTIFACTS, EMBED, JUDGE, QA, Endpoint
from pipeline_sdg.generation import GenerationPlan, WindowResult, drop_duplicates, generate, label_all
from pipeline_sdg.journal import Journal
from pipeline_sdg.journals import open_journal
from pipeline_sdg.judge import Evaluation
from pipeline_sdg.labels import LabelPlan
from pipeline_sdg.llm import EMBED_BATCH, Caller, CallOptions, RoleUsage, Sampling
from pipeline_sdg.local_encoder import LOCAL, LocalEncoder
from pipeline_sdg.pairs import Pair, PairRules
from pipeline_sdg.pooling import Pool
from pipeline_sdg.roles import check_may_leave, endpoints_of, served
from pipeline_sdg.vectors import Embed

_WRITING_AT_ONCE, _BATCHED_AT_ONCE = 16, 4096


@dataclass
class Generated:
    """Everything the models gave, before it is sorted into records."""

    results: list[WindowResult]
    kept: list[tuple[WindowResult, Pair, Evaluation]]
    usage: dict[str, RoleUsage]
    seconds: float


def main(config: SdgConfig, run: StageRun) -> StageResult:
    """Read `config.corpus_dir`, ask the models about it, and write records that `prep` understands."""
    corpus = documents.survey(config)
    texts = list(documents.documents(config))
    passages = {document.path: chunk_document(document, config) for document in texts}
    every = [
        window
        for document in texts
        for window in windows_of(
            document.path, title_of(document), passages[document.path], config.window_chunks, config.window_tokens
        )
    ]
    windows = spread(every, config.max_windows)
    if len(windows) < len(every):
        run.log.info(f"asking about {len(windows)} of {len(every)} windows, spread evenly (max_windows; null for all)")
    endpoints = endpoints_of(config, run.command_line)
    _announce(run, config, corpus, windows, endpoints)
    check_may_leave(endpoints, corpus, config.allow_remote)

    parallel = config.max_parallel_requests_for_gen
    with (
        open_journal(run.folder, resume=config.resume) as journal,
        served(endpoints, parallel, config.embedded_threads) as addressed,
    ):
        made = asyncio.run(_generate(config, windows, passages, addressed, journal, run.folder))

    return _write(run, config, texts, passages, made)


async def _generate(
    config: SdgConfig,
    windows: list[Window],
    passages: dict[str, list[Passage]],
    endpoints: list[Endpoint],
    journal: Journal,
    folder: Path,
) -> Generated:
    """Ask for pairs, drop duplicates, judge what is left: in this order, so that no duplicate is judged."""
    started = time.monotonic()
    rules = PairRules(
        num_pairs=config.num_pairs,
        query_counts=config.query_counts,
        reasoning_counts=config.reasoning_counts,
        min_hops=config.min_hops,
        max_hops=config.max_hops,
        min_complexity=config.min_complexity,
        num_sections=config.num_sections,
    )
    roles = {item.role for item in endpoints}
    plan = GenerationPlan(
        rules, config.qa_format, ARTIFACTS in roles, config.max_artifacts_per_type, config.repair, config.window_tokens
    )
    labels = LabelPlan(config.quality_judge, config.check_answers, config.hop_check, config.repair)
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens, config.seed)
    workers = _workers(config)
    async with Caller(
        endpoints, journal, sampling, config.timeout, config.max_retries, _call_options(config, folder)
    ) as caller:
        results = await generate(windows, plan, caller, workers)
        embed = _embedder(config, caller, roles)
        kept = await drop_duplicates(results, config.similarity_threshold, embed, folder)
        pool = None
        if config.pooled_judging and kept:
            every = ((item.chunk.get("title", ""), item.chunk["text"]) for found in passages.values() for item in found)
            pool = await Pool.build(every, folder, embed)
        labelled = await label_all(kept, labels, caller, workers, pool, config.pooled_judging)
    pairs = [
        (result, done.pair, done.evaluation)
        for (result, _), done in zip(kept, labelled, strict=True)
        if done.pair is not None
    ]
    return Generated(results, pairs, caller.usage, time.monotonic() - started)


def _call_options(config: SdgConfig, folder: Path) -> CallOptions:
    return CallOptions(
        parallel=config.max_parallel_requests_for_gen,
        requests_per_minute=config.requests_per_minute,
        max_tokens_total=config.max_tokens_total,
        max_cost=config.max_cost,
        prices=config.prices,
        redact=tuple(config.redact),
        batch_folder=folder / "batches" if config.batch_api else None,
    )


def _workers(config: SdgConfig) -> int:
    """More than there are calls at once: while an answer is written to the disk the next call is under way already.

    A batch of the batch API is what waits at the same time.
    """
    return _BATCHED_AT_ONCE if config.batch_api else config.max_parallel_requests_for_gen + _WRITING_AT_ONCE


def _embedder(config: SdgConfig, caller: Caller, roles: set[str]) -> Embed | None:
    """What makes vectors of questions and passages; None compares their words."""
    if EMBED in roles:
        return partial(caller.embed, EMBED)
    if config.embed_provider == LOCAL and config.embed_model:
        return LocalEncoder(config.embed_model).embed
    return None


def _announce(
    run: StageRun, config: SdgConfig, corpus: Survey, windows: list[Window], endpoints: list[Endpoint]
) -> None:
    """Say what was found and what the run will ask for, before the first call."""
    for line in documents.describe(corpus):
        run.log.info(line)
    for line in documents.warnings(corpus):
        run.log.warning(f"warning: {line}")
    if config.qa_format == "full" and config.reasoning_counts.get("visual"):
        run.log.info("reasoning type `visual` is not asked for (text has no pictures); the others take its share")
    pairs = len(windows) * config.num_pairs
    calls = {ARTIFACTS: len(windows), QA: len(windows), EMBED: math.ceil(pairs / EMBED_BATCH), JUDGE: pairs}
    if config.qa_format == "questions":
        calls[QA] = pairs
    asked = (config.quality_judge == "llm", config.check_answers, config.hop_check != "off", config.pooled_judging > 0)
    calls[JUDGE] = pairs * sum(asked)
    run.log.info(f"plan: {len(corpus.entries)} documents, {len(windows)} windows, about {pairs} pairs")
    for item in endpoints:
        where = item.base_url or "this machine"
        run.log.info(f"plan: {item.role}: about {calls[item.role]} calls to {item.model} at {where}")


def _write(
    run: StageRun, config: SdgConfig, texts: list[Document], passages: dict[str, list[Passage]], made: Generated
) -> StageResult:
    """Sort the pairs into one record per document and write the stage's files."""
    results: dict[str, list[WindowResult]] = {document.path: [] for document in texts}
    kept: dict[str, list[tuple[Pair, Evaluation]]] = {document.path: [] for document in texts}
    for result in made.results:
        results[result.window.document].append(result)
    for result, pair, evaluation in made.kept:
        kept[result.window.document].append((pair, evaluation))
    records = [
        output.build_record(
            document,
            [passage.chunk for passage in passages[document.path]],
            results[document.path],
            kept[document.path],
            config.num_sections,
        )
        for document in texts
    ]
    rejections = [item for result in made.results for item in result.rejections]
    outputs = output.write_records(run.folder, records, config.batch_size)
    outputs.append(output.write_usage(run.folder, made.usage))
    outputs.append(output.write_rejections(run.folder, rejections))
    counts = output.counts_of(records, rejections) | _coverage(results, kept)
    unanswered = sum(result.unanswered for result in made.results)
    if unanswered:
        run.log.warning(f"warning: {unanswered} windows got no answer at all; rejected.jsonl says why")
    return StageResult(
        outputs=outputs,
        counts={**counts, "windows_unanswered": unanswered},
        metrics=_metrics(made),
        headline=_headline(counts, rejections, made),
        next_command=f"pipeline {run.family.name} prep{run.config_hint}",
        failure=None if counts["pairs_kept"] else "no usable pair was made: see rejected.jsonl for the reasons",
    )


def _metrics(made: Generated) -> dict[str, float]:
    tokens = sum(item.output_tokens for item in made.usage.values())
    return {
        "calls_made": sum(item.calls_made for item in made.usage.values()),
        "calls_reused": sum(item.calls_reused for item in made.usage.values()),
        "input_tokens": sum(item.input_tokens for item in made.usage.values()),
        "output_tokens": tokens,
        "output_tokens_per_second": round(tokens / made.seconds, 1) if made.seconds > 0 else 0.0,
    }


def _coverage(results: dict[str, list[WindowResult]], kept: dict[str, list[tuple[Pair, Evaluation]]]) -> dict[str, int]:
    """How many passages were shown to a model, and how many of them a question cites."""
    found = [
        coverage([result.window for result in windows], [pair["segment_ids"] for pair, _ in kept[name]])
        for name, windows in results.items()
    ]
    return {
        "passages_asked_about": sum(item.chunks for item in found),
        "passages_with_question": sum(item.covered for item in found),
    }


def _headline(counts: dict[str, int], rejections: list, made: Generated) -> list[tuple[str, str]]:
    metrics = _metrics(made)
    rejected = f"{len(rejections):,}"
    if rejections:
        rejected += f" ({output.top_reasons(rejections)})"
    return [
        ("documents", f"{counts['documents']:,} ({counts['passages']:,} passages)"),
        (
            "coverage",
            f"{counts['passages_with_question']:,} of {counts['passages_asked_about']:,} passages asked about",
        ),
        (
            "pairs",
            f"{counts['pairs_generated']:,} generated, {counts['pairs_kept']:,} kept, "
            f"{counts['pairs_unjudged']:,} of them unjudged",
        ),
        ("rejected", rejected),
        ("calls", f"{metrics['calls_made']:,} made, {metrics['calls_reused']:,} taken from the journal"),
        (
            "tokens",
            f"{metrics['input_tokens']:,} in, {metrics['output_tokens']:,} out "
            f"({metrics['output_tokens_per_second']:,} out/s)",
        ),
    ]


def cli() -> None:
    run_stage("sdg", main)


if __name__ == "__main__":
    cli()

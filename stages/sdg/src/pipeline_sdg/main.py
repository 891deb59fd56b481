"""sdg: documents in, judged question–answer pairs out."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.run.files import write_json
from pipeline.run.lock import holder_text, is_locked
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.sdg import SdgConfig
from pipeline_sdg import documents, output
from pipeline_sdg.calls.usage import Prices, estimated_tokens, total_cost
from pipeline_sdg.documents import Survey
from pipeline_sdg.endpoints import ARTIFACTS, EMBED, Endpoint
from pipeline_sdg.estimate import ENOUGH_REPLIES, described, estimate, warnings
from pipeline_sdg.funnel import Funnel
from pipeline_sdg.generation import GenerationPlan, find_repeats, generate, label_all
from pipeline_sdg.journal import Journal
from pipeline_sdg.journals import open_journal, running_shards, unfinished_shards
from pipeline_sdg.labels import LabelPlan
from pipeline_sdg.llm import Caller, CallOptions, RoleUsage, Sampling
from pipeline_sdg.local_encoder import LOCAL, LocalEncoder
from pipeline_sdg.output import Made
from pipeline_sdg.pairs import PairRules
from pipeline_sdg.pooling import Pool
from pipeline_sdg.roles import check_may_leave, endpoints_of, served
from pipeline_sdg.templates import Profiles
from pipeline_sdg.units import Asked, Units
from pipeline_sdg.vectors import Embed

_WRITING_AT_ONCE, _BATCHED_AT_ONCE = 16, 4096
BATCHES = "batches"
LONG_PROMPT = 16_000
"""Tokens of one call from which on few models read all of it with care."""


@dataclass(frozen=True)
class Paid:
    """What the calls of this run took."""

    usage: dict[str, RoleUsage]
    seconds: float


def main(config: SdgConfig, run: StageRun) -> StageResult:
    """Read `config.corpus_dir`, ask the models about it, and write records that `prep` understands."""
    profiles = Profiles(config.prompt_profile, config.prompt_profiles)
    _check_others(config, run)
    corpus = documents.survey(config, run.folder)
    units = Units(corpus, config, run.folder)
    if not units.windows:
        raise PipelineError(
            f"{config.corpus_dir}: none of the {len(units)} documents holds a sentence to ask about",
            fix="check corpus_dir and file_extensions",
        )
    asked = Asked(units, config)
    endpoints = endpoints_of(config, run.command_line)
    with open_journal(run.folder, Path(config.output_dir), config.resume) as journal:
        _announce(run, config, corpus, units, asked, endpoints, journal)
        check_may_leave(endpoints, corpus, config.allow_remote)
        with served(endpoints, config.max_parallel_requests_for_gen, config.embedded_threads) as addressed:
            made, paid = asyncio.run(_generate(config, profiles, units, asked, addressed, journal, run.folder))
    return _preview(run, config, made) if config.preview else _write(run, config, corpus, made, paid)


def _check_others(config: SdgConfig, run: StageRun) -> None:
    """The run of a folder puts its shards' answers together: are they all there? And none begins meanwhile.

    Raises:
        PipelineError: another part of this run is under way, or a batch of a shard is.
    """
    root = Path(config.output_dir)
    if run.folder != root:
        if is_locked(root):
            raise PipelineError(f"{root} is under way: {holder_text(root)}", fix="wait for it")
        return
    if running := running_shards(root):
        raise PipelineError(f"under way: {', '.join(running)}", fix="wait for it, then give the command again")
    for folder in unfinished_shards(root):
        if config.batch_api and any((root / folder / BATCHES).glob("*")):
            raise PipelineError(
                f"{root / folder} has batches under way at the provider, which are paid for",
                fix="finish that shard first, with the command that began it",
            )
        run.log.warning(f"warning: {folder} is not finished; what is missing is asked for here")


async def _generate(
    config: SdgConfig,
    profiles: Profiles,
    units: Units,
    asked: Asked,
    endpoints: list[Endpoint],
    journal: Journal,
    folder: Path,
) -> tuple[Made, Paid]:
    """Ask for pairs, drop duplicates, label what is left: in this order, so that no duplicate is judged."""
    started = time.monotonic()
    plan = _plan(config, profiles, endpoints)
    labels = LabelPlan(config.quality_judge, config.check_answers, config.hop_check, config.repair)
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens, config.seed)
    workers = _workers(config)
    options = _call_options(config, folder)
    async with Caller(endpoints, journal, sampling, config.timeout, config.max_retries, options) as caller:
        complete = False
        try:
            results = await generate(asked, plan, caller, workers, folder)
            embed = _embedder(config, caller)
            rows = await find_repeats(
                results, config.similarity_threshold, embed, folder, hops_may_drop=config.hop_check == "drop"
            )
            pool = None
            if config.pooled_judging and len(rows):  # a preview does not pay for the vectors of the whole corpus
                pool = await Pool.build(units.passages(), folder, None if config.preview else embed)
            judged = await label_all(
                rows, results, asked, labels, profiles, caller, workers, pool, config.pooled_judging, folder
            )
            complete = True
        finally:  # what was paid for is said, however the run ends
            output.write_usage(folder, caller.usage, complete)
    return Made(units, asked, results, rows, judged), Paid(caller.usage, time.monotonic() - started)


def _plan(config: SdgConfig, profiles: Profiles, endpoints: list[Endpoint]) -> GenerationPlan:
    rules = PairRules(
        num_pairs=config.num_pairs,
        query_counts=config.query_counts,
        reasoning_counts=config.reasoning_counts,
        min_hops=config.min_hops,
        max_hops=config.max_hops,
        min_complexity=config.min_complexity,
        num_sections=config.num_sections,
        visual=config.visual,
        query_styles=config.query_styles,
        personas=config.personas,
        strategy=config.bundle_strategy,
    )
    return GenerationPlan(
        rules,
        profiles,
        config.qa_format,
        any(item.role == ARTIFACTS for item in endpoints),
        config.max_artifacts_per_type,
        config.repair,
        config.window_tokens,
    )


def _call_options(config: SdgConfig, folder: Path) -> CallOptions:
    return CallOptions(
        parallel=config.max_parallel_requests_for_gen,
        requests_per_minute=config.requests_per_minute,
        max_tokens_total=config.max_tokens_total,
        max_cost=config.max_cost,
        prices=config.prices,
        redact=tuple(config.redact),
        batch_folder=folder / BATCHES if config.batch_api else None,
    )


def _workers(config: SdgConfig) -> int:
    """More than there are calls at once: while an answer is written to the disk the next call is under way already.

    A batch of the batch API is what waits at the same time.
    """
    return _BATCHED_AT_ONCE if config.batch_api else config.max_parallel_requests_for_gen + _WRITING_AT_ONCE


def _embedder(config: SdgConfig, caller: Caller) -> Embed | None:
    """What makes vectors of questions and passages; None compares their words."""
    if EMBED in caller.usage:
        return partial(caller.embed, EMBED)
    if config.embed_provider == LOCAL and config.embed_model:
        return LocalEncoder(config.embed_model).embed
    return None


def _announce(
    run: StageRun,
    config: SdgConfig,
    corpus: Survey,
    units: Units,
    asked: Asked,
    endpoints: list[Endpoint],
    journal: Journal,
) -> None:
    """Say what was found and what the run will ask for, before the first call."""
    for line in documents.describe(corpus):
        run.log.info(line)
    for line in documents.warnings(corpus):
        run.log.warning(f"warning: {line}")
    if config.qa_format == "full" and config.reasoning_counts.get("visual") and not config.visual:
        run.log.info("reasoning type `visual` is not asked for (visual=true asks); the others take its share")
    if len(asked) < units.windows:
        why = "preview" if config.preview else f"shard={config.shard}" if config.shard else "max_windows, spread evenly"
        run.log.info(f"asking about {len(asked)} of {units.windows} windows ({why})")
    bundles = f" in {len(units)} bundles" if config.multi_doc else ""
    _warn_of_long_prompts(run, config, units)
    run.log.info(f"plan: {len(corpus.entries)} documents{bundles}, {len(asked)} windows")
    for item in endpoints:
        run.log.info(f"plan: {item.role}: {item.model} at {item.base_url or 'this machine'}")
    roles = [item.role for item in endpoints]
    needs, prices = estimate(asked.sizes(), config, roles, journal.means(ENOUGH_REPLIES)), Prices(config.prices, roles)
    for line in described(needs, prices):
        run.log.info(f"plan: {line}")
    for line in warnings(needs, prices, config):
        run.log.warning(f"warning: {line}")


def _warn_of_long_prompts(run: StageRun, config: SdgConfig, units: Units) -> None:
    name, characters = units.longest
    if config.window_tokens is None and estimated_tokens(characters) > LONG_PROMPT:
        run.log.warning(
            f"warning: {name}: one call would show about {estimated_tokens(characters):,} tokens and get "
            f"{config.num_pairs} pairs: set window_tokens (such as 2000)"
        )


def _preview(run: StageRun, config: SdgConfig, made: Made) -> StageResult:
    """Show the first window's pairs in their record, which goes into a folder of its own."""
    funnel = Funnel()
    [shown] = output.outputs_of(made, funnel)
    record = shown.record(config)
    path = write_json(run.folder / output.PREVIEW, record | {"rejected": shown.rejections})
    print(json.dumps({name: value for name, value in record.items() if name != "text"}, ensure_ascii=False, indent=2))
    return StageResult(
        outputs=[path, run.folder / output.USAGE],
        counts=dict(funnel.counts),
        headline=[("pairs", _pairs_line(funnel)), ("rejected", _rejected_line(funnel))],
        next_command=f"pipeline {run.family.name} sdg{run.config_hint}",
    )


def _write(run: StageRun, config: SdgConfig, corpus: Survey, made: Made, paid: Paid) -> StageResult:
    """Write the stage's files and say what they hold."""
    funnel = Funnel()
    outputs = output.write_all(run.folder, made, config, funnel)
    outputs += [output.write_funnel(run.folder, funnel.report(corpus, paid.usage)), run.folder / output.USAGE]
    counts = {name: funnel.counts[name] for name in output.COUNTED}
    if counts["windows_unanswered"]:
        run.log.warning(
            f"warning: {counts['windows_unanswered']} windows got no answer at all; rejected.jsonl says why"
        )
    return StageResult(
        outputs=outputs,
        counts=counts,
        metrics=_metrics(paid),
        headline=_headline(funnel, paid),
        next_command=_next_command(run, config),
        failure=_nothing_made(config, counts),
    )


def _nothing_made(config: SdgConfig, counts: dict[str, int]) -> str | None:
    """A shard may have nothing to ask about, which is no failure; a whole corpus may not."""
    if counts["pairs_kept"] or (config.shard and not counts["windows"]):
        return None
    return "no usable pair was made: see rejected.jsonl for the reasons"


def _next_command(run: StageRun, config: SdgConfig) -> str:
    if config.shard:
        return f"the other shards, then pipeline {run.family.name} sdg{run.config_hint} without shard"
    return f"pipeline {run.family.name} prep{run.config_hint}"


def _metrics(paid: Paid) -> dict[str, float]:
    names = ("calls_made", "calls_reused", "calls_failed", "repair_turns", "input_tokens", "output_tokens")
    totals: dict[str, float] = {name: sum(getattr(item, name) for item in paid.usage.values()) for name in names}
    totals["output_tokens_per_second"] = round(totals["output_tokens"] / max(paid.seconds, 1e-9), 1)
    cost = total_cost(paid.usage)
    return totals if cost is None else totals | {"cost": cost}


def _headline(funnel: Funnel, paid: Paid) -> list[tuple[str, str]]:
    counts, metrics = funnel.counts, _metrics(paid)
    rows = [
        ("documents", f"{counts['documents']:,} ({counts['passages']:,} passages)"),
        (
            "coverage",
            f"{counts['passages_with_question']:,} of {counts['passages_asked_about']:,} passages asked about",
        ),
        ("pairs", _pairs_line(funnel)),
        ("rejected", _rejected_line(funnel)),
        (
            "calls",
            f"{metrics['calls_made']:,} made, {metrics['calls_reused']:,} taken from the journal, "
            f"{metrics['repair_turns']:,} repair turns, {metrics['calls_failed']:,} failed",
        ),
        (
            "tokens",
            f"{metrics['input_tokens']:,} in, {metrics['output_tokens']:,} out "
            f"({metrics['output_tokens_per_second']:,} out/s)",
        ),
    ]
    return rows + ([("cost", f"{metrics['cost']:.4g}")] if "cost" in metrics else [])


def _pairs_line(funnel: Funnel) -> str:
    counts = funnel.counts
    return (
        f"{counts['pairs_generated']:,} generated, {counts['pairs_kept']:,} kept, "
        f"{counts['pairs_unjudged']:,} of them unjudged"
    )


def _rejected_line(funnel: Funnel) -> str:
    rejected = f"{funnel.counts['rejected']:,}"
    return f"{rejected} ({funnel.top_reasons()})" if funnel.counts["rejected"] else rejected


def cli() -> None:
    run_stage("sdg", main)


if __name__ == "__main__":
    cli()

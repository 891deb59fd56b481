"""The prep stage: question–answer pairs in, a leak-free training set with hard negatives and a BEIR test set out."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.records.training import TrainingRow
from pipeline.retrieval.encode_corpus import Batches
from pipeline.retrieval.hardware import encode_batch_tokens
from pipeline.retrieval.passages import Passages
from pipeline.retrieval.world import World
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.mining import MiningKeys
from pipeline.schemas.prep import PrepConfig
from pipeline_prep.encoding import Keep, encode
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.read import read_input
from pipeline_prep.inputs.train_file import read_train_file
from pipeline_prep.mining.compute import make_compute
from pipeline_prep.mining.mine import mine
from pipeline_prep.mining.pool import Compute
from pipeline_prep.mining.rescore import make_rescorer
from pipeline_prep.mining.task import MiningTask
from pipeline_prep.model import model_of
from pipeline_prep.outputs import write
from pipeline_prep.prepared import Prepared, Side
from pipeline_prep.questions import Converted
from pipeline_prep.round_trip import found_again
from pipeline_prep.rows import fill, mining_task, training_rows, unroll
from pipeline_prep.split import Splits, split_questions
from pipeline_prep.summary import counts, headline, mining_metrics, tell, warn_of_boilerplate


def main(config: PrepConfig, run: StageRun) -> StageResult:
    """Filter the pairs, split them by document, mine hard negatives with the base model, unroll."""
    world = World.join(config.dist_timeout_minutes, config.device)
    try:
        return prepare(config, run, world)
    finally:
        world.leave()


def prepare(config: PrepConfig, run: StageRun, world: World) -> StageResult:
    """The work of `main`. Processes share the encoding and the search, do all else alike, and one writes."""
    funnel = Funnel()
    converted, splits, train, val = read(config, run, funnel)
    corpus = corpus_table(converted)
    number = {key: place for place, key in enumerate(converted.passages)}

    model = model_of(config, run.command_line)
    # Before the corpus is encoded: a key or an address that is missing must not cost hours.
    rescorer = make_rescorer(config, run.folder, model.device) if world.leads else None
    batches = Batches(encode_batch_tokens(config.encode_batch_tokens, model.device))
    keep = Keep(Path(config.cache_embeddings_dir), batches, batches)
    encoder = model.load()
    encoded = encode(encoder, model, corpus, [row.question for row in train + val], keep, world)
    del encoder
    compute = make_compute(config, model.device, encoded.passages, encoded.queries, config.seed, world)

    sides = [
        (rows, mining_task(rows, corpus, number, splits.hidden, splits.apart), queries)
        for rows, queries in ((train, encoded.queries[: len(train)]), (val, encoded.queries[len(train) :]))
    ]
    if config.round_trip_top_k and not config.train_input_file:
        k = config.round_trip_top_k
        sides = [round_trip(*side, encoded.passages, k, compute, funnel) for side in sides]
        close_round_trip(funnel, sides, config)
    mined = []
    for (rows, task, queries), rules in zip(sides, (config, rules_of_val(config)), strict=True):
        found = mine(task, queries, encoded.passages, rules, seed=config.seed, compute=compute, rescorer=rescorer)
        mined.append(Side(rows, task, found))
    if rescorer:
        rescorer.close()
    for side in mined:
        fill(side.rows, side.task, side.mined)
    unrolled = unroll(mined[0].rows)
    left = sum(len(side.rows) for side in mined)
    funnel.close("mined", left, f"{len(unrolled):,} training rows after unrolling, one positive each")

    made = Prepared(funnel, converted, splits, *mined, unrolled, encoded.contract, compute.recall)
    outputs = write(run.folder, config, made) if world.leads else []
    tell(run.log, made, config.max_pos_docs)
    return StageResult(
        outputs=outputs,
        counts=counts(made),
        metrics={"mining": mining_metrics(made)},
        headline=headline(made),
        next_command=f"pipeline {run.family.name} finetune{run.config_hint}",
    )


def read(
    config: PrepConfig, run: StageRun, funnel: Funnel
) -> tuple[Converted, Splits, list[TrainingRow], list[TrainingRow]]:
    """Passages, splits, and the rows of train and val without mined negatives."""
    if config.train_input_file:
        if {"sdg_input_path", "train_input_file"} <= run.command_line and config.sdg_input_path:
            raise PipelineError(
                "sdg_input_path and train_input_file are both set", fix="leave one out: the second skips conversion"
            )
        converted, splits, train = read_train_file(config, funnel)
        return converted, splits, train, []
    converted = read_input(Path(config.sdg_input_path or ""), config, funnel)
    if not converted.questions:
        raise no_questions(config, funnel)
    warn_of_boilerplate(run.log, converted)
    splits = split_questions(converted, config, funnel, run.log)
    train, val = (
        training_rows(splits[name], config.corpus_id, config.max_pos_docs, config.excess_positives, funnel)
        for name in ("train", "val")
    )
    for name, rows in (("train", train), ("val", val)):
        if splits[name] and not rows:
            raise PipelineError(
                f"every {name} question has more than max_pos_docs={config.max_pos_docs} positives",
                fix="set excess_positives=truncate, or raise max_pos_docs",
            )
    return converted, splits, train, val


def corpus_table(converted: Converted) -> pa.Table:
    """The passages in their order: columns id, text and title."""
    passages = converted.passages.values()
    columns = {
        "id": [item.id for item in passages],
        "text": [item.text for item in passages],
        "title": [item.title for item in passages],
    }
    return pa.table({name: pa.array(values, pa.large_string()) for name, values in columns.items()})


Asked = tuple[list[TrainingRow], MiningTask, np.ndarray]
"""Rows, the same as a task, and the vectors of their questions."""


def round_trip(
    rows: list[TrainingRow],
    task: MiningTask,
    queries: np.ndarray,
    passages: Passages,
    k: int,
    compute: Compute,
    funnel: Funnel,
) -> Asked:
    """The rows whose passage the base model finds again; the others go into the funnel."""
    found = found_again(queries, passages, task.known, k, compute)
    for row, kept in zip(rows, found, strict=True):
        if not kept:
            funnel.reject("not found again", row.question_id, row.question, f"no positive among the first {k}")
    kept = np.flatnonzero(found)
    return [rows[place] for place in kept], task.rows(kept), queries[kept]


def close_round_trip(funnel: Funnel, sides: list[Asked], config: PrepConfig) -> None:
    """
    Raises:
        PipelineError: no question of a side that was asked for is left.
    """
    left = [len(rows) for rows, _, _ in sides]
    funnel.close("round trip", sum(left), "of train and val; test is never filtered")
    for name, count, ratio in zip(("training", "validation"), left, (1, config.val_ratio), strict=True):
        if not count and ratio:
            raise PipelineError(
                f"the base model finds no {name} question's passage among its first {config.round_trip_top_k}",
                fix="set round_trip_top_k=null, or look at the questions in rejected.jsonl",
            )


def rules_of_val(config: PrepConfig) -> MiningKeys:
    """As for train, but rescoring adds no positives: they would be of documents that train may use."""
    return replace(config, rescore_action="drop")


def no_questions(config: PrepConfig, funnel: Funnel) -> PipelineError:
    reasons = Counter(item["reason"] for item in funnel.rejected).most_common()
    lost = ", ".join(f"{reason} {count:,}" for reason, count in reasons) or "the records hold no pairs"
    too_strict = bool(reasons) and reasons[0][0] == "below quality_threshold"
    return PipelineError(
        f"{config.sdg_input_path}: no question is left after filtering: {lost}",
        fix=f"lower quality_threshold (now {config.quality_threshold:g})" if too_strict else "check the output of sdg",
    )


def cli() -> None:
    logging.getLogger("datasets").setLevel(logging.ERROR)
    run_stage("prep", main)


if __name__ == "__main__":
    cli()

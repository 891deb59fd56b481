"""The prep stage: question–answer pairs in, a leak-free training set with hard negatives and a BEIR test set out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.contract import EncodingContract
from pipeline.errors import PipelineError
from pipeline.records.sdg import read_records
from pipeline.records.training import TrainingRow
from pipeline.retrieval.encoder import BiEncoder, LoadOptions
from pipeline.retrieval.hardware import pick_device, pick_dtype
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.prep import PrepConfig
from pipeline_prep.inputs.sdg_records import convert
from pipeline_prep.funnel import Funnel
from pipeline_prep.mining.mine import mine
from pipeline_prep.outputs import write
from pipeline_prep.mining.report import mining_section
from pipeline_prep.round_trip import found_again
from pipeline_prep.rows import training_rows, unroll
from pipeline_prep.split import split_questions
from pipeline_prep.summary import Prepared, counts, headline, tell, warn_of_boilerplate
from pipeline_prep.vectors import Vectors, encode_once


def main(config: PrepConfig, run: StageRun) -> StageResult:
    """Filter the pairs, split them by document, mine hard negatives with the base model, unroll."""
    funnel = Funnel()
    converted = convert(read_records(Path(config.sdg_input_path)), config.quality_threshold, funnel)
    if not converted.questions:
        raise no_questions(config, funnel)
    warn_of_boilerplate(run.log, converted)
    ratios = {"train": config.train_ratio, "val": config.val_ratio, "test": config.test_ratio}
    splits = split_questions(converted, ratios, config.seed, funnel)
    train = training_rows(splits["train"], config.corpus_id, config.max_pos_docs)
    val = training_rows(splits["val"], config.corpus_id, config.max_pos_docs)

    device = pick_device(config.device)
    encoder = load_encoder(config, run, device)
    vectors = encode_once(encoder, list(converted.passages.values()), train + val, config.encode_batch_tokens, run.log)
    if config.round_trip_top_k:
        train, val = (round_trip(rows, vectors, config, funnel, device) for rows in (train, val))
        funnel.close("round trip", len(train) + len(val), "of train and val; test is never filtered")
        if not train:
            raise PipelineError(
                f"the base model finds no training question's passage among its first {config.round_trip_top_k}",
                fix="set round_trip_top_k=null, or look at the questions in rejected.jsonl",
            )

    # Passages that answer a test question stay out of the training negatives; see `mine`.
    kept_for_test = {key for question in splits["test"] for key in question.positives}
    mined, mined_val = (
        mine(
            rows,
            vectors,
            wanted=config.hard_negatives_to_mine,
            margin=config.hard_neg_margin,
            kept_for_test=kept_for_test,
            query_block=config.mining_batch_size,
            device=device,
        )
        for rows in (train, val)
    )
    unrolled = unroll(train)
    funnel.close("mined", len(train) + len(val), f"{len(unrolled):,} training rows after unrolling, one positive each")

    made = Prepared(funnel, converted, splits["test"], train, val, unrolled, mined, mined_val)
    outputs = write(run.folder, config, made, encoder.contract)
    tell(run.log, made, config.max_pos_docs, config.hard_negatives_to_mine)
    return StageResult(
        outputs=outputs,
        counts=counts(made),
        metrics={"mining": mining_section(mined)},
        headline=headline(made),
        next_command=f"pipeline {run.family.name} finetune{run.config_hint}",
    )


def load_encoder(config: PrepConfig, run: StageRun, device: Any) -> BiEncoder:
    """The mining model under its contract: its own if it was made by `finetune`, else the configured one."""
    place = Path(config.base_model).expanduser()
    own = EncodingContract.load(place) if place.is_dir() else None
    contract = own.under(config, run.command_line, str(place)) if own else EncodingContract.from_config(config)
    contract.need_one_vector(config.base_model)
    dtype = pick_dtype(config.precision, device)
    options = LoadOptions(config.base_model_revision, config.trust_remote_code, config.attn_implementation)
    encoder = BiEncoder.load(config.base_model, contract, device=device, dtype=dtype, options=options)
    run.log.info(f"base model {config.base_model} on {device} in {encoder.contract.dtype}")
    return encoder


def round_trip(
    rows: list[TrainingRow], vectors: Vectors, config: PrepConfig, funnel: Funnel, device: Any
) -> list[TrainingRow]:
    """The rows whose passage the base model finds again; the others go into the funnel."""
    k = config.round_trip_top_k or 0
    kept = []
    for row, found in zip(rows, found_again(rows, vectors, k, config.mining_batch_size, device), strict=True):
        if found:
            kept.append(row)
        else:
            funnel.reject("not found again", row.question_id, row.question, f"no positive among the first {k}")
    return kept


def no_questions(config: PrepConfig, funnel: Funnel) -> PipelineError:
    reasons = Counter(item["reason"] for item in funnel.rejected).most_common()
    lost = ", ".join(f"{reason} {count:,}" for reason, count in reasons) or "the records hold no pairs"
    too_strict = bool(reasons) and reasons[0][0] == "below quality_threshold"
    return PipelineError(
        f"{config.sdg_input_path}: no question is left after filtering: {lost}",
        fix=f"lower quality_threshold (now {config.quality_threshold:g})" if too_strict else "check the output of sdg",
    )


def cli() -> None:
    run_stage("prep", main)


if __name__ == "__main__":
    cli()

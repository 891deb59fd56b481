"""What is about to happen and why, said before anything costs time."""

from __future__ import annotations

from pipeline.run.stage import StageRun
from pipeline.schemas.finetune import EmbedFinetuneConfig, FinetuneConfig
from pipeline_finetune.schedule import Schedule
from pipeline_finetune.setup import SourceRows


def show_plan(run: StageRun, config: FinetuneConfig, schedule: Schedule, rows: SourceRows) -> None:
    """Write the training plan to the log."""
    run.log.info("training plan")
    for line in (
        f"model: {config.base_model}",
        f"data: {rows.train.name}, {len(rows.train)} rows over {len(rows.train.passages)} passages, "
        + (f"{len(rows.val)} validation rows" if rows.val else "no validation rows"),
        f"loss: {loss_text(config)}",
        *schedule.explanation,
    ):
        run.log.info("  %s", line)
    if rows.val is None:
        wanted = [
            name
            for name, on in (("select_best", config.select_best), ("early stopping", config.early_stopping_patience))
            if on
        ]
        off = f" ({' and '.join(wanted)} asked for)" if wanted else ""
        run.log.warning("without validation rows there is no BEST checkpoint and no early stopping%s", off)


def loss_text(config: FinetuneConfig) -> str:
    """Loss and who competes, in one line."""
    who = "each query's own passages"
    more = ""
    if isinstance(config, EmbedFinetuneConfig):
        if config.in_batch_negatives:
            who = "every other passage of the step and hard negatives"
        if config.cross_rank_negatives:
            who += ", of all processes"
        if config.false_negative_margin is not None:
            more += f", none within {config.false_negative_margin:g} of the positive"
        if config.matryoshka_dims:
            more += f", also for vectors of {', '.join(map(str, config.matryoshka_dims))}"
    return (
        f"{config.loss} over {who}{more}, up to {config.train_n_passages} passages per query, "
        f"temperature {config.temperature:g}"
    )

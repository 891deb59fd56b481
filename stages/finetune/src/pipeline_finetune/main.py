"""The finetune stage: mined rows in, a model that loads anywhere out."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.finetune import EmbedFinetuneConfig
from pipeline_finetune.checkpoint import Checkpoints
from pipeline_finetune.data import LoadedRows, load_rows, load_val_rows
from pipeline_finetune.publish import publish
from pipeline_finetune.schedule import Schedule, ScheduleKeys, plan_schedule
from pipeline_finetune.setup import identify, make_trainer, training_contract
from pipeline_finetune.tracking import train_log


def main(config: EmbedFinetuneConfig, run: StageRun) -> StageResult:
    """Fine-tune `config.base_model` on mined training rows and publish the last (or best) checkpoint."""
    if run.family.name != "embed":
        raise PipelineError(f"finetune of the {run.family.name} family is not built yet")
    with train_log(run.folder):
        contract = training_contract(config, run)
        train = load_rows(Path(config.train_data_path), need_negatives=not config.in_batch_negatives)
        val = load_val_rows(Path(config.val_data_path) if config.val_data_path else None)
        schedule = plan_schedule(len(train.rows), ScheduleKeys.from_config(config), explicit=run.explicit)
        show_plan(run, config, schedule, train, val)

        checkpoints = Checkpoints(Path(config.checkpoint_dir), config.keep_checkpoints)
        identity = identify(config, contract, schedule, train.corpus_path)
        newest = checkpoints.open(identity.fingerprint, config.resume)
        if newest is None or newest.step < schedule.total_steps:
            trainer = make_trainer(config, contract, (train, val), schedule, checkpoints, identity, newest)
            if newest:
                run.log.info("continuing after step %d (%s)", newest.step, newest.path.name)
            trainer.run()
        else:
            run.log.info("this very run is finished: publishing %s again", newest.path.name)
        return publish(config, run, checkpoints, schedule)


def show_plan(
    run: StageRun, config: EmbedFinetuneConfig, schedule: Schedule, train: LoadedRows, val: LoadedRows | None
) -> None:
    """Say what is about to happen and why, before anything costs time."""
    negatives = "every other passage of the step and hard negatives" if config.in_batch_negatives else "hard negatives"
    lines = [
        f"model: {config.base_model}",
        f"data: {len(train.rows)} rows over {len(train.corpus)} passages, "
        + (f"{len(val.rows)} validation rows" if val else "no validation rows"),
        f"loss: InfoNCE over {negatives}, up to {config.train_n_passages} passages per query, "
        f"temperature {config.temperature:g}",
        *schedule.explanation,
    ]
    run.log.info("training plan")
    for line in lines:
        run.log.info("  %s", line)


def cli() -> None:
    run_stage("finetune", main)


if __name__ == "__main__":
    cli()

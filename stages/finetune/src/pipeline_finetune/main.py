"""The finetune stage: training rows in, a model that loads anywhere out."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from pipeline.run.stage import StageResult, StageRun, run_stage
from pipeline.schemas.finetune import FinetuneConfig
from pipeline_finetune.checkpoint import Checkpoint, Checkpoints
from pipeline_finetune.distributed import TrainingWorld
from pipeline_finetune.fingerprint import identify
from pipeline_finetune.plan import show_plan
from pipeline_finetune.publish import publish
from pipeline_finetune.schedule import Schedule, ScheduleKeys, plan_schedule
from pipeline_finetune.setup import make_trainer, read_rows, training_contract
from pipeline_finetune.tracking import train_log
from pipeline_finetune.trainer import RunIdentity


def main(config: FinetuneConfig, run: StageRun) -> StageResult:
    """Fine-tune `config.base_model` on training rows and publish the last (or best) checkpoint.

    Started by torchrun, every process comes here; the first one alone reads rows, writes files and speaks.
    """
    world = TrainingWorld.join(config.timeout_minutes)
    try:
        with train_log(run.folder) if world.leads else nullcontext():
            return train(config, run, world)
    finally:
        world.leave()


def train(config: FinetuneConfig, run: StageRun, world: TrainingWorld) -> StageResult:
    contract = training_contract(config, run)
    checkpoints = Checkpoints(Path(config.checkpoint_dir), config.keep_checkpoints, config.best_metric)
    rows = read_rows(config) if world.leads else None
    plan: tuple[Schedule, RunIdentity, Path | None] | None = None
    if rows:
        schedule = plan_schedule(
            len(rows.train), ScheduleKeys.from_config(config), world_size=world.size, explicit=run.explicit
        )
        show_plan(run, config, schedule, rows)
        identity = identify(config, contract, schedule, rows)
        newest = (
            checkpoints.restore(config.restore_from, identity.fingerprint)
            if config.restore_from
            else checkpoints.open(identity.fingerprint, config.resume)
        )
        plan = schedule, identity, newest.path if newest else None
    schedule, identity, place = world.share(plan)  # type: ignore[misc]
    newest = Checkpoint.read(place) if place else None
    if newest is None or not (newest.finished or newest.step >= schedule.total_steps):
        if newest:
            run.log.info("continuing after step %d (%s)", newest.step, newest.path.name)
        trainer = make_trainer(config, contract, rows, schedule, checkpoints, identity, newest, world)
        try:
            trainer.run()
        finally:
            if trainer.tracker:
                trainer.tracker.close()
    else:
        run.log.info("this very run is finished: publishing %s again", newest.path.name)
    return publish(config, run, checkpoints, schedule) if world.leads else StageResult(outputs=[])


def cli() -> None:
    run_stage("finetune", main)


if __name__ == "__main__":
    cli()

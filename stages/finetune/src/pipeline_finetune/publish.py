"""The end of a run: which checkpoint to use, and what training was like."""

from __future__ import annotations

import os
from typing import Any

from pipeline.retrieval.hardware import pick_device, pick_dtype
from pipeline.run.stage import StageResult, StageRun
from pipeline.schemas.finetune import FinetuneConfig
from pipeline_finetune.checkpoint import LATEST, Checkpoint, Checkpoints
from pipeline_finetune.schedule import Schedule
from pipeline_finetune.throughput import peak_flops


def publish(config: FinetuneConfig, run: StageRun, checkpoints: Checkpoints, schedule: Schedule) -> StageResult:
    """Point LATEST at the checkpoint to use and report what training was like."""
    chosen = checkpoints.all()[-1]
    best = checkpoints.best()
    if config.select_best and best is None:
        run.log.warning("select_best=true, but there is no validation: publishing the last checkpoint")
    elif config.select_best and best is not None:
        chosen = best
    checkpoints.point(LATEST, chosen)
    last = checkpoints.all()[-1].state
    metrics = metrics_of(config, last, chosen)
    folder = checkpoints.folder
    logs = [path for path in (folder / "training.jsonl", folder / "validation.jsonl") if path.is_file()]
    headline = [
        ("model", os.path.relpath(chosen.consolidated)),
        ("steps", f"{last['step']} of {schedule.global_batch} queries, {last['epoch'] + 1} epochs"),
        ("train loss", f"{metrics['train_loss']:.4f}"),
    ]
    if chosen.state["val"]:
        headline.append(
            (
                "validation",
                "loss {val_loss:.4f}, accuracy@1 {val_acc1:.3f}, MRR {val_mrr:.3f}, nDCG@10 {val_ndcg10:.3f}".format(
                    **metrics
                ),
            )
        )
    headline.append(
        (
            "speed",
            "{examples_per_s:.1f} queries/s, {tokens_per_s:.0f} tokens/s, {gemm_share:.0%} of the "
            "machine's matrix speed".format(**metrics),
        )
    )
    return StageResult(
        outputs=[chosen.consolidated, *logs],
        counts={"rows": schedule.rows, "steps": last["step"], "epochs": last["epoch"] + 1},
        metrics=metrics,
        headline=headline,
        next_command=f"pipeline {run.family.name} eval{run.config_hint}",
    )


def metrics_of(config: FinetuneConfig, last: dict[str, Any], chosen: Checkpoint) -> dict[str, float]:
    """Loss at the end of training, validation of the published checkpoint, speed over the whole run."""
    device = pick_device(config.device)
    totals = last["totals"]
    seconds = totals["seconds"]
    achieved = totals["flops"] / seconds
    return {
        "train_loss": last["train_loss"],
        "published_step": chosen.step,
        **(chosen.state["val"] or {}),
        "examples_per_s": totals["examples"] / seconds,
        "tokens_per_s": totals["tokens"] / seconds,
        "training_seconds": seconds,
        "tflops": achieved / 1e12,
        "gemm_share": achieved / peak_flops(device, pick_dtype(config.precision, device)),
    }

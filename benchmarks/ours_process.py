"""One run of our finetune stage in a process of its own: `python ours_process.py SPEC.json`.

With `{"gemm": …}` instead: the operations per second of a large matrix product, in fp32 and bf16.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch
from pipeline_finetune.main import main as finetune
from pipeline_finetune.throughput import peak_flops

from pipeline.run.files import read_jsonl
from pipeline.run.handoff import read_handoff
from pipeline.run.stage import execute


def train(spec: dict) -> dict[str, float]:
    """Run the stage; seconds and tokens are of the steps after the first `skip_steps`."""
    resolved = read_handoff(Path(spec["handoff"]))
    execute(resolved, finetune)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if torch.cuda.is_available() and not spec["cpu"]:
        peak = torch.cuda.max_memory_allocated() / 2**20
    log = Path(resolved.config.checkpoint_dir) / "training.jsonl"
    lines = [line for _, line in read_jsonl(log)][spec["skip_steps"] :]
    seconds = sum(line["time_per_step"] for line in lines)
    tokens = sum(line["tokens_per_s"] * line["time_per_step"] for line in lines)
    padded = sum(line["tokens_per_s"] * line["time_per_step"] / (1 - line["padding_share"]) for line in lines)
    metrics = json.loads((Path(resolved.config.output_dir) / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    return {
        "steps": len(lines), "seconds": seconds, "tokens": tokens, "flops": metrics["tflops"] * 1e12 * seconds,
        "padding": 1 - tokens / padded, "peak_mib": peak,
    }  # fmt: skip


def gemm(spec: dict) -> dict[str, float]:
    device = torch.device("cpu" if spec["cpu"] else "cuda")
    return {"fp32": peak_flops(device, torch.float32), "bf16": peak_flops(device, torch.bfloat16)}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    answer = gemm(given) if given.get("gemm") else train(given)
    Path(given["result"]).write_text(json.dumps(answer), encoding="utf-8")

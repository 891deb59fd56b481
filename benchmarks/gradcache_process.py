"""What GradCache costs: one step with its activations held whole, in half and not at all, in turn, in one process.

`python gradcache_process.py SPEC.json`. In turn, because a machine's speed drifts by more than the difference.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from pipeline_finetune.backward import backward
from pipeline_finetune.losses.infonce import InfoNCE

from pipeline.contract import EncodingContract
from pipeline.retrieval.attention import use_fast_dropout, use_plain_attention
from pipeline.retrieval.batching import token_batches
from pipeline.retrieval.encoder import BiEncoder

ROUNDS = 5
MICRO_TOKENS = 2048


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(spec["threads"])
    length = spec["max_length"]
    encoder = BiEncoder.load(spec["model"], EncodingContract(query_max_length=length, passage_max_length=length))
    use_plain_attention(encoder.model)
    use_fast_dropout(encoder)
    encoder.train()
    tokens = encoder.tokenize(spec["queries"], "query") + encoder.tokenize(spec["passages"], "passage")
    batches = token_batches([len(item) for item in tokens], MICRO_TOKENS)
    rows = len(spec["queries"])
    positive = torch.arange(rows)
    loss = InfoNCE(0.05)
    everyone = torch.ones(rows, len(spec["passages"]), dtype=torch.bool)

    def encode(items):
        with torch.autocast("cpu", torch.bfloat16):
            return encoder(*encoder.collate([tokens[item] for item in items])).float()

    def step(held: int) -> float:
        encoder.zero_grad(set_to_none=True)
        begun = time.perf_counter()
        backward(
            encode,
            batches,
            lambda vectors: loss(vectors[:rows] @ vectors[rows:].T, positive, everyone),
            held=held,
            device=torch.device("cpu"),
        )
        return time.perf_counter() - begun

    held = {"whole": len(batches), "half": len(batches) // 2, "none": 0}
    step(len(batches))
    seconds: dict[str, list[float]] = {name: [] for name in held}
    for _ in range(ROUNDS):
        for name, count in held.items():
            seconds[name].append(step(count))
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    answer = {f"held_{name}": round(middle[name] / middle["whole"] - 1, 3) for name in ("half", "none")}
    Path(spec["result"]).write_text(json.dumps({**answer, "seconds_whole": middle["whole"]}), encoding="utf-8")


if __name__ == "__main__":
    main()

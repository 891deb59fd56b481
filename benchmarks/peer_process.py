"""One training by sentence-transformers in a process of its own: `python peer_process.py SPEC.json`.

Imports nothing of ours, so that it runs in an environment of the peer's own. Everything that the specification does not
name is left at the library's default.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, ListNetLoss
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from transformers import TrainerCallback

ONE_HOT = 30.0
"""ListNet compares with the softmax of the labels: 30 against 0 is one-hot in fp32, the listwise softmax loss."""


class Clock(TrainerCallback):
    """When each step ended, and after how many tokens."""

    def __init__(self, work: Work) -> None:
        self.work, self.ends, self.done = work, [], []

    def on_step_end(self, *arguments, **_) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.done.append((self.work.tokens, self.work.padded, self.work.flops))


class Work:
    """Counts the tokens that pass through the transformer with gradients, and the operations they take."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        self.tokens = self.padded = self.flops = 0.0
        config = transformer.model.config
        linear = [item for name, item in transformer.named_modules() if isinstance(item, torch.nn.Linear)
                  and "pooler" not in name]  # fmt: skip
        self.per_token = 6 * sum(item.weight.numel() for item in linear)
        self.per_pair = 12 * config.num_hidden_layers * config.hidden_size
        transformer.register_forward_pre_hook(self.count)

    def count(self, _module: torch.nn.Module, arguments: tuple) -> None:
        if not torch.is_grad_enabled():  # the first of GradCache's two passes is overhead, not work
            return
        lengths = arguments[0]["attention_mask"].sum(1).double()
        self.tokens += lengths.sum().item()
        self.padded += arguments[0]["attention_mask"].numel()
        self.flops += self.per_token * lengths.sum().item() + self.per_pair * (lengths**2).sum().item()


def training_arguments(spec: dict) -> dict:
    pairs = 1 + len(spec["rows"][0]["negatives"]) if spec["loss"] == "bce" else 1
    more = {"batch_sampler": "no_duplicates"} if spec.get("no_duplicates") else {}
    return {
        "output_dir": spec["folder"], "num_train_epochs": spec["epochs"], "seed": spec["seed"],
        "per_device_train_batch_size": spec["batch"] * pairs, "learning_rate": spec["learning_rate"],
        "warmup_steps": spec["lr_warmup_steps"], "bf16": spec["bf16"], "use_cpu": spec["cpu"],
        "save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True, **more,
    }  # fmt: skip


def bi_encoder(spec: dict):
    model = SentenceTransformer(spec["model"], device="cpu" if spec["cpu"] else None)
    model.max_seq_length = spec["max_length"]
    rows, width = spec["rows"], min(len(row["negatives"]) for row in spec["rows"])
    columns = {"anchor": [row["query"] for row in rows], "positive": [row["positive"] for row in rows]}
    columns |= {f"negative_{n}": [row["negatives"][n] for row in rows] for n in range(width)}
    losses = {"mnrl": MultipleNegativesRankingLoss, "cached": CachedMultipleNegativesRankingLoss}
    loss = losses[spec["loss"]](model, scale=1 / spec["temperature"])
    arguments = SentenceTransformerTrainingArguments(**training_arguments(spec))
    return model, SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=loss
    )


def cross_encoder(spec: dict):
    body = Path(spec["folder"]) / "body"  # without the metadata that makes it a bi-encoder
    body.mkdir(parents=True)
    for path in Path(spec["model"]).iterdir():
        if path.is_file() and path.name != "modules.json" and "sentence" not in path.name:
            shutil.copy(path, body)
    model = CrossEncoder(str(body), num_labels=1, max_length=spec["max_length"], device="cpu" if spec["cpu"] else None)
    rows = spec["rows"]
    listed = [[row["positive"], *row["negatives"]] for row in rows]
    if spec["loss"] == "listnet":
        labels = [[ONE_HOT] + [0.0] * (len(texts) - 1) for texts in listed]
        data, loss = {"query": [row["query"] for row in rows], "docs": listed, "labels": labels}, ListNetLoss(model)
    else:
        pairs = [(row["query"], text, float(place == 0)) for row, texts in zip(rows, listed, strict=True)
                 for place, text in enumerate(texts)]  # fmt: skip
        data = dict(zip(("query", "passage", "label"), map(list, zip(*pairs, strict=True)), strict=True))
        loss = BinaryCrossEntropyLoss(model)
    arguments = CrossEncoderTrainingArguments(**training_arguments(spec))
    return model, CrossEncoderTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(data), loss=loss)


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    spec["rows"] = [json.loads(line) for line in Path(spec["rows"]).read_text(encoding="utf-8").splitlines()]
    torch.set_num_threads(spec["threads"])
    model, trainer = (bi_encoder if spec["family"] == "embed" else cross_encoder)(spec)
    clock = Clock(Work(model[0]))
    trainer.add_callback(clock)
    trainer.train()
    skipped = spec["skip_steps"] - 1
    tokens, padded, flops = (last - first for first, last in zip(clock.done[skipped], clock.done[-1], strict=True))
    seconds = clock.ends[-1] - clock.ends[skipped]
    if spec["save"]:
        model.save_pretrained(spec["save"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if torch.cuda.is_available() and not spec["cpu"]:
        peak = torch.cuda.max_memory_allocated() / 2**20
    result = {
        "steps": len(clock.ends) - spec["skip_steps"], "seconds": seconds, "tokens": tokens, "flops": flops,
        "padding": 1 - tokens / padded, "peak_mib": peak,
    }  # fmt: skip
    Path(spec["result"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()

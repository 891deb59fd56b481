"""Does training help, and as much as the peer's? nDCG@10 of base, ours and sentence-transformers on held-out queries.

    python benchmarks/quality.py --data BEIR_DIR [BEIR_DIR …] [--seeds 3] [--smoke]

Training pairs are the folder's train qrels, hard negatives are mined with the base model, both trainers get the same
rows, and all models are judged by the same encoder code on the test qrels. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pipeline_eval.metrics import score_queries
from pipeline_eval.statistics import compare
from rows import Row, show, write_rows
from systems import MODEL, PEER, Setting, System, run_ours, run_peer

from pipeline.assets import resolve_model
from pipeline.contract import EncodingContract, contract_of_model
from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, read_beir
from pipeline.retrieval.encoder import BiEncoder
from pipeline.retrieval.hardware import pick_dtype
from pipeline.retrieval.search import top_k

NEGATIVES = 4
MARGIN = 0.95
"""A negative scores at most this share of the positive's similarity (NV-Retriever's rule, as in prep)."""
DEPTH = 100
CUT = 10

HARD_ONLY = ("in_batch_negatives=false",)
SYSTEMS = {
    "ours": System("ours", bf16=True),
    "ours, clustered": System("ours, clustered", bf16=True, overrides=(*HARD_ONLY, "data_order=clustered")),
    "ours, hard negatives": System("ours, hard negatives", bf16=True, overrides=HARD_ONLY),
    "peer": System("peer", "mnrl", bf16=True),
    "peer, no duplicates": System("peer, no duplicates", "mnrl", bf16=True, peer_options={"no_duplicates": True}),
}


def mined_rows(data: TestSet, model: BiEncoder, limit: int | None) -> list[Row]:
    """A row for every judged pair, with the hardest passages that the margin lets through.

    A query with too few of those takes harder ones, best first, so that both trainers have full rows.
    """
    ids = list(data.corpus)
    texts = [plain(data, key) for key in ids]
    place = {key: number for number, key in enumerate(ids)}
    names = list(data.queries)
    vectors = model.encode_passages(texts)
    queries = model.encode_queries([data.queries[name] for name in names])
    scores, found = top_k(queries, vectors, DEPTH)
    rows = []
    for number, name in enumerate(names):
        known = set(data.qrels[name])
        for positive in data.qrels[name]:
            ceiling = MARGIN * float(queries[number] @ vectors[place[positive]])
            candidates = [(score, ids[index]) for score, index in zip(scores[number], found[number], strict=True)]
            candidates = [item for item in candidates if item[1] not in known]
            ordered = sorted(candidates, key=lambda item: item[0] > ceiling)  # stable: below the ceiling come first
            negatives = [plain(data, key) for _, key in ordered[:NEGATIVES]]
            row = Row(data.queries[name], plain(data, positive), negatives, [plain(data, key) for key in sorted(known)])
            rows.append(row)
    return [row for row in rows if len(row.negatives) == NEGATIVES][:limit]


def plain(data: TestSet, key: str) -> str:
    """Title and text of a passage as one text, the same for every system."""
    passage = data.corpus[key]
    return f"{passage.title} {passage.text}".strip()


def ndcg(folder: str, contract: EncodingContract, test: TestSet) -> np.ndarray:
    """nDCG@10 of each test query, fp64 [queries], with the weights in `folder` under `contract`."""
    model = BiEncoder.load(folder, contract, dtype=pick_dtype("auto", torch.device("cpu")))
    ids = list(test.corpus)
    names = list(test.queries)
    passages = model.encode_passages([plain(test, key) for key in ids])
    scores, found = top_k(model.encode_queries([test.queries[name] for name in names]), passages, DEPTH)
    run = {
        name: {ids[index]: float(score) for score, index in zip(scores[row], found[row], strict=True)}
        for row, name in enumerate(names)
    }
    judged = score_queries(test.qrels, run, [CUT])
    return np.array([judged[name][f"NDCG@{CUT}"] for name in names])


def train(system: System, setting: Setting, files: tuple[Path, Path], folder: Path) -> str:
    """Train once; returns the folder of the model."""
    if system.peer_loss:
        run_peer(system, setting, files[1], folder, save=folder / "model")
        return str(folder / "model")
    run_ours(system, setting, files[0], folder)
    checkpoints = folder / "run" / "stage2_finetune" / "checkpoints"
    return str(checkpoints / "LATEST" / "model" / "consolidated")


def measure(arguments: argparse.Namespace, data: Path, setting: Setting, folder: Path) -> list[dict[str, object]]:
    """All systems on one data set: mean over the seeds of each query's score, compared query by query."""
    base = resolve_model(MODEL)
    found = contract_of_model(Path(base))
    if found is None:
        raise PipelineError(f"{base}: has no sentence-transformers metadata")
    contract = found.with_(query_max_length=setting.max_length, passage_max_length=setting.max_length)
    rows = mined_rows(read_beir(data, "train"), BiEncoder.load(base, contract), arguments.rows)
    test = read_beir(data, "test")
    files = write_rows(folder / "data", rows)
    warmup = max(1, len(rows) // setting.batch * setting.epochs // 10)
    scores = {"base": ndcg(base, contract, test)}
    for number, (name, system) in enumerate(SYSTEMS.items()):
        if arguments.systems and name not in arguments.systems:
            continue
        runs = []
        for seed in range(arguments.seeds):
            print(f"{data.name}: {name}, seed {seed} …", file=sys.stderr, flush=True)
            place = folder / f"system{number}_{seed}"
            this = replace(setting, seed=seed, lr_warmup_steps=warmup)
            runs.append(ndcg(train(system, this, files, place), contract, test))
        scores[name] = np.mean(runs, axis=0)
    return [line(data.name, len(rows), name, scores) for name in scores]


def line(data: str, rows: int, name: str, scores: dict[str, np.ndarray]) -> dict[str, object]:
    """One row of the table: the mean, and the paired difference to base and to ours."""
    cells: dict[str, object] = {"data": data, "rows": rows, "system": name, "nDCG@10": f"{scores[name].mean():.4f}"}
    for other in ("base", "ours"):
        cells[f"against {other}"] = ""
        if other in scores and other != name:
            result = compare(scores[other][:, None], scores[name][:, None])[0]
            low, high = result.ci95
            cells[f"against {other}"] = f"{result.delta:+.4f} [{low:+.4f}, {high:+.4f}] p={result.p:.3f}"
    return cells


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="BEIR folders with train and test qrels")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="train on the first so many rows")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the training")
    parser.add_argument("--systems", nargs="*", default=[], help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys of our stage")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    parser.add_argument("--smoke", action="store_true", help="16 rows, one epoch, one seed, 64 tokens")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rows, arguments.epochs, arguments.seeds, arguments.batch, arguments.max_length = 16, 1, 1, 4, 64
    return arguments


def main() -> None:
    arguments = parse()
    setting = Setting(
        "embed", arguments.batch, 1, epochs=arguments.epochs, max_length=arguments.max_length,
        learning_rate=arguments.learning_rate, threads=arguments.threads, cpu=arguments.device == "cpu",
        overrides=tuple(arguments.set),
    )  # fmt: skip
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for data in arguments.data:
            lines += measure(arguments, data, setting, Path(folder) / data.name)
    facts = {
        "peer": PEER, "seeds": arguments.seeds, "epochs": arguments.epochs, "batch": arguments.batch,
        "learning_rate": arguments.learning_rate, "max_length": arguments.max_length, "overrides": arguments.set,
    }  # fmt: skip
    show("Quality of tuned MiniLM", lines, facts, arguments.output)


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(f"error: {error}")

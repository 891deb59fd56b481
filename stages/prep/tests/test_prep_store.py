"""What the stage encodes, and what it finds again in its store of vectors: the real embedded model."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline_prep.main import main

from pipeline.assets import resolve_model
from pipeline.config import resolve
from pipeline.records.passages import read_corpus
from pipeline.records.training import TrainingFile
from pipeline.retrieval.encoder import BiEncoder
from pipeline.run.stage import execute

SHARES = ("train_ratio=0.5", "val_ratio=0.25", "test_ratio=0.25")
FILES = (
    "corpus/train.parquet",
    "train.json",
    "val.json",
    "train_mined.automodel.json",
    "train_mined.automodel_unrolled.json",
    "eval_beir/corpus.jsonl",
    "eval_beir/queries.jsonl",
    "eval_beir/qrels/test.tsv",
    "mining_report.json",
    "rejected.jsonl",
)


class Runs:
    """Runs of the stage that share one store, and what each gave to the model."""

    def __init__(self, root: Path, records, write_records, patch: pytest.MonkeyPatch) -> None:
        self.root, self.records, self.write_records = root, records, write_records
        self.seen: list[tuple[str, str]] = []
        tokenize = BiEncoder.tokenize

        def noted(encoder, texts, kind):
            self.seen += [(kind, text) for text in texts]
            return tokenize(encoder, texts, kind)

        patch.setattr(BiEncoder, "tokenize", noted)

    def settings(self, name: str, *overrides: str, records=None) -> list[str]:
        source = self.write_records(self.root / name / "sdg", records or self.records)
        return [f"sdg_input_path={source}", f"run_dir={self.root / name}", "round_trip_top_k=null", "device=cpu",
                "precision=fp32", f"cache_embeddings_dir={self.root / 'cache'}", *SHARES, *overrides]  # fmt: skip

    def __call__(self, name: str, *overrides: str, records=None) -> Path:
        self.seen.clear()
        resolved = resolve("embed", "prep", "demo", self.settings(name, *overrides, records=records))
        assert execute(resolved, main) is None
        return Path(resolved.config.output_dir)

    def of(self, kind: str) -> list[str]:
        return sorted(text for seen, text in self.seen if seen == kind)


@pytest.fixture
def runs(tmp_path, corpus_records, write_records, monkeypatch):
    return Runs(tmp_path, corpus_records, write_records, monkeypatch)


def texts_of(made: Path) -> tuple[list[str], list[str]]:
    """Passages, and questions of train and val."""
    passages = sorted(item.text for item in read_corpus(made / "corpus").values())
    rows = [row for name in ("train.json", "val.json") for row in TrainingFile.load(made / name).rows]
    return passages, sorted(row.question for row in rows)


def test_a_second_run_gives_nothing_to_the_model_and_the_same_files(runs):
    first = runs("first")
    assert (runs.of("passage"), runs.of("query")) == texts_of(first)
    second = runs("second")
    assert runs.seen == []
    for name in (name for name in FILES if name != "mining_report.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_another_split_encodes_only_questions_that_were_in_the_test_set(runs):
    before = set(texts_of(runs("first"))[1])
    after = set(texts_of(runs("second", "seed=7"))[1])
    assert runs.of("passage") == [] and runs.of("query") == sorted(after - before) != []


def test_a_changed_passage_and_a_changed_question_alone_are_encoded(runs, corpus_records):
    made = runs("first")
    asked = texts_of(made)[1]
    name, new = TrainingFile.load(made / "train.json").rows[0].extra["metadata"]["file_name"][0], "Why is the sky blue?"
    records = [dict(record) for record in corpus_records]
    place = next(n for n, record in enumerate(records) if record["file_name"] == [name])
    chunks = [dict(chunk) for chunk in records[place]["chunks"]]
    chunks[2]["text"] += " And one more thing."
    pairs = [dict(pair) for pair in records[place]["deduplicated_qa_pairs"]]
    old, pairs[0]["question"] = pairs[0]["question"], new
    records[place] |= {"chunks": chunks, "deduplicated_qa_pairs": pairs}
    changed = runs("second", records=records)
    assert runs.of("passage") == [chunks[2]["text"]] and old in asked
    assert runs.of("query") == sorted(set(texts_of(changed)[1]) - set(asked)) and new in runs.of("query")


@pytest.mark.parametrize(("key", "kind", "place"), [("passage_prefix", "passage", 0), ("query_prefix", "query", 1)])
def test_another_prefix_encodes_what_it_stands_before_and_no_more(runs, key, kind, place):
    runs("first")
    made = runs("second", f"{key}=tell: ")
    assert runs.of(kind) == ["tell: " + text for text in texts_of(made)[place]]
    assert len(runs.seen) == len(runs.of(kind)), "the other side keeps its vectors"


@pytest.mark.parametrize("setting", ["passage_max_length=32", "pooling=cls", "precision=bf16"])
def test_another_contract_encodes_every_passage(runs, setting):
    runs("first")
    made = runs("second", setting)
    assert runs.of("passage") == texts_of(made)[0]


@pytest.mark.slow
def test_other_weights_encode_everything_and_the_old_vectors_stay(runs):
    own = Path(shutil.copytree(resolve_model("embedded:all-MiniLM-L6-v2"), runs.root / "model"))
    own.chmod(0o755)
    model = f"base_model={own}"
    runs("first", model)
    weights = next(own.glob("*.safetensors"))
    weights.chmod(0o644)
    with weights.open("r+b") as stream:
        stream.seek(-2, os.SEEK_END)
        stream.write(b"\x01\x3c")
    made = runs("second", model)
    assert (runs.of("passage"), runs.of("query")) == texts_of(made)
    runs("third")
    assert runs.seen == [], "the unchanged model under its other name"


_RANK = """
import sys
import torch
from pipeline.config import resolve
from pipeline.retrieval import encode_corpus
from pipeline.run.stage import execute
from pipeline_prep.main import main
torch.set_num_threads(1)
encode_corpus._SHARD_TEXTS = 5
execute(resolve("embed", "prep", "demo", sys.argv[1:]), main)
"""


def start(overrides: list[str], size: int) -> None:
    """So many processes, each with the environment that torchrun gives it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
              "LOCAL_RANK": "0"}  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RANK, *overrides], env={**os.environ, **common, "RANK": str(rank)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * size, "\n".join(errors)


@pytest.mark.slow
def test_two_processes_write_the_files_that_one_writes(runs):
    # Blocks and shards so small that both have work to do; rules and draws that meet every step of mining.
    common = ("corpus_chunk_size=5", "mining_batch_size=4", "round_trip_top_k=3", "bm25_share=0.4",
              "fill_short_rows=true", "hard_negatives_to_mine=8")  # fmt: skip
    results = {}
    for size in (1, 2):
        own = [*common, f"cache_embeddings_dir={runs.root / f'cache{size}'}"]
        start(runs.settings(f"of{size}", *own), size)
        results[size] = runs.root / f"of{size}" / "stage1_data_prep"
    stores = [{path.relative_to(runs.root / f"cache{size}"): path.read_bytes()
               for path in (runs.root / f"cache{size}").rglob("*.npy")} for size in (1, 2)]  # fmt: skip
    assert stores[0] == stores[1] and len(stores[0]) >= 2 * 8
    for name in (name for name in FILES if name != "rejected.jsonl"):  # it names each run's own input
        assert (results[1] / name).read_bytes() == (results[2] / name).read_bytes(), name

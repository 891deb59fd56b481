"""Several processes of one evaluation, started as the command line starts them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from pipeline_eval.main import main

from pipeline.config import resolve
from pipeline.contract import EncodingContract
from pipeline.records.results import FILE_NAME
from pipeline.run.files import read_jsonl
from pipeline.run.handoff import write_handoff
from pipeline.run.stage import execute

_PROGRAM = """
import os, sys
from pathlib import Path
from pipeline.errors import PipelineError
from pipeline.retrieval import encode_corpus
from pipeline.retrieval.cross_encoder import CrossEncoder
from pipeline.retrieval.encoder import BiEncoder
from pipeline_eval.main import cli

encode_corpus._SHARD_TEXTS = 2
folder, rank = Path(sys.argv.pop(1)), os.environ["RANK"]

def noted(kind, name, of_one):
    work = getattr(kind, name)
    def noting(self, items, *more, **how):
        with (folder / f"{of_one}.{rank}").open("a") as stream:
            stream.write("x" * len(items))
        if of_one == os.environ.get("BREAK") and rank == "1":
            raise PipelineError("the second one broke", fix="mend it")
        return work(self, items, *more, **how)
    setattr(kind, name, noting)

noted(BiEncoder, "encode_tokens", "texts")
noted(CrossEncoder, "score", "pairs")
cli()
"""
_COMMON = ("bootstrap_samples=200", "precision=fp32", "device=cpu", "k_values=[1, 3]", "question_sets={}",
           "corpus_chunk_size=2", "batch_tokens=64", "cache_embeddings_dir=${output_dir}/cache")  # fmt: skip


@pytest.fixture
def of_family(run_dir, tiny_model, tiny_reranker):
    """of_family(family, folder): what to run, with every kind of system that computes a model here."""
    shared = [f"run_dir={run_dir}", f"eval_data_path={run_dir}/stage1_data_prep/eval_beir", f"base_model={tiny_model}"]
    embedder = shutil.copytree(tiny_model, run_dir / "embedder")
    EncodingContract(query_max_length=32, passage_max_length=32).save(embedder)
    asked = {
        "embed": [f"finetuned_model_path={embedder}", f"reranker_model={tiny_reranker}", "top_k=4", "dims=[8]",
                  "quantized=[int8]", "query_max_length=32", "passage_max_length=32"],
        "rerank": [f"finetuned_model_path={tiny_reranker}", f"retrieval_model={embedder}", "base_retrieval_model=null",
                   "top_k=3", "max_length=32", "candidates=hybrid"],
    }  # fmt: skip
    return lambda family, folder: resolve(
        family, "eval", "demo", [*shared, *_COMMON, *asked[family], f"output_dir={run_dir / folder}"]
    )


def start(resolved, folder, environment=None):
    """Two processes under torchrun."""
    write_handoff(resolved, folder / "two.yaml")
    program = folder / "rank.py"
    program.write_text(_PROGRAM)
    launch = ["-m", "pipeline.retrieval.launch", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *launch, program, folder, "--config", folder / "two.yaml"],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def saved(folder):
    """Metrics and comparisons, and the first passages of every question by system."""
    document = json.loads((folder / FILE_NAME).read_text())
    systems = document.pop("_metadata")["measurements"]["synthetic"]
    tops = {
        system: {row["query_id"]: [key for key, _ in row["top"]] for _, row in read_jsonl(folder / item["scores"])}
        for system, item in systems.items()
    }
    counts = {system: (item["facts"]["texts"], item["facts"]["cut"]) for system, item in systems.items()}
    return document, tops, counts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "systems", "once"),
    [
        (
            "embed",
            ["bm25", "base", "finetuned", "finetuned@8", "finetuned@int8", "hybrid", "reranked"],
            {"texts": 2 * 12, "pairs": 4 * 6},
        ),
        ("rerank", ["bm25", "retriever", "hybrid", "base", "finetuned"], {"texts": 12, "pairs": 2 * 3 * 6}),
    ],
)
def test_two_processes_measure_what_one_measures(of_family, run_dir, family, systems, once):
    done = start(of_family(family, "two"), run_dir)
    assert done.returncode == 0, done.stderr
    assert execute(of_family(family, "one"), main) is None
    assert saved(run_dir / "two") == saved(run_dir / "one")
    assert list(saved(run_dir / "two")[1]) == systems
    shares = {kind: [(run_dir / f"{kind}.{rank}").stat().st_size for rank in range(2)] for kind in once}
    assert {kind: sum(both) for kind, both in shares.items()} == once and min(map(min, shares.values())) > 0
    assert done.stdout.count(": done in ") == 1  # one of them speaks


@pytest.mark.slow
def test_one_process_that_fails_ends_all_with_its_error(of_family, run_dir):
    done = start(of_family("rerank", "broken"), run_dir, {"BREAK": "texts"})
    assert done.returncode == 1
    assert done.stderr.count("the second one broke") == 1 and "fix: mend it" in done.stderr
    assert "Traceback" not in done.stderr and "another process" not in done.stderr

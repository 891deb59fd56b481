"""The flow of sdg_quality.py through the real command line. Every step stays in a folder and is not done twice."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from pipeline.records.beir import TestSet, read_beir, write_beir
from pipeline.records.results import EvalResults, read_query_scores
from pipeline.run.files import read_json, read_jsonl, write_jsonl

SDG, PREP, FINETUNE, EVAL = "stage0_sdg", "stage1_data_prep", "stage2_finetune", "stage3_eval"
METRICS = ("NDCG@10", "Recall@10")
_SHOWN_LINES = 15

NO_TEST_SHARE = ("train_ratio=0.9", "val_ratio=0.1", "test_ratio=0")
"""The people's questions are the test set: the tenth that prep would keep back for a test is trained on."""


@dataclass(frozen=True)
class Flow:
    """What all runs share: the BEIR folder, where everything is kept, and keys beside those of the demo."""

    data: Path
    folder: Path
    num_pairs: int
    settings: tuple[str, ...] = ()

    def generate(self) -> Path:
        """Questions about every passage of the corpus, which is all that the model sees. Returns the stage's folder."""
        rows = (row for _, row in read_jsonl(self.data / "corpus.jsonl"))
        write_jsonl(self.folder / "corpus" / "corpus.jsonl", rows)
        run = self.folder / "sdg"
        self._run(
            run, "sdg", "sdg", f"corpus_dir={self.folder / 'corpus'}", "file_extensions=.jsonl", "chunking=none",
            "max_windows=null", f"num_pairs={self.num_pairs}",
        )  # fmt: skip
        return run / SDG

    def tune(self, run: Path, records: Path, seed: int, *more: str) -> None:
        """From records to scores of the tuned model on the people's questions."""
        keys = (f"sdg_input_path={records}", f"seed={seed}", *NO_TEST_SHARE, *self._test_set, *self.settings, *more)
        self._run(run, "prep", "eval", *keys, "eval_base=false", "eval_bm25=false")

    def measure_base(self, run: Path) -> None:
        """Scores of the untrained model and of BM25."""
        self._run(run, "eval", "eval", *self._test_set, "eval_finetuned=false")

    @property
    def _test_set(self) -> tuple[str, ...]:
        # The corpus of this run is not the demo's: its questions do not belong here.
        return (
            f"eval_data_path={self.data}", f"eval_data_name={self.data.name}", f"corpus_dir={self.folder / 'corpus'}"
        )  # fmt: skip

    def scores(self, run: Path, system: str) -> np.ndarray:
        """A system's scores, [questions, METRICS], in the order of the questions' ids."""
        results = EvalResults.load(run / EVAL)
        if results is None:
            raise PipelineError(f"{run / EVAL}: there are no results")
        found = read_query_scores(run / EVAL / results.provenance[self.data.name][system].scores)
        return np.array([[found[query][metric] for metric in METRICS] for query in sorted(found)])

    def _run(self, run: Path, first: str, last: str, *keys: str) -> None:
        """The stages from `first` to `last` that are not fresh; what they say goes to a file beside `run`.

        Raises:
            PipelineError: a stage failed.
        """
        print(f"{run.relative_to(self.folder)}: {first} to {last} …", file=sys.stderr, flush=True)
        command = [
            sys.executable, "-m", "pipeline", "embed", "run", "-c", "demo", "--from", first, "--to", last,
            f"run_dir={run}", *keys,
        ]  # fmt: skip
        run.mkdir(parents=True, exist_ok=True)
        log = run / f"{first}-{last}.log"
        with log.open("w", encoding="utf-8") as stream:
            done = subprocess.run(
                command, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "160"}
            )
        if done.returncode:
            tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-_SHOWN_LINES:])
            raise PipelineError(f"{run}: {first} to {last} ended with exit code {done.returncode}; {log} ends:\n{tail}")


def cut(data: Path, folder: Path, documents: int) -> Path:
    """The first so many documents of a BEIR folder and the test questions about them, as a BEIR folder."""
    whole = read_beir(data)
    corpus = dict(list(whole.corpus.items())[:documents])
    qrels = {
        query: inside
        for query, judged in whole.qrels.items()
        if (inside := {key: grade for key, grade in judged.items() if key in corpus})
    }
    queries = {query: whole.queries[query] for query in qrels}
    return write_beir(folder / data.name, TestSet(data.name, corpus, queries, qrels))


def trained_on(run: Path) -> tuple[int, int]:
    """(rows, steps) of a training."""
    counts = read_json(run / FINETUNE / "manifest.json")["counts"]
    return counts["rows"], counts["steps"]

"""What a large corpus costs sdg: the whole stage over many documents, its memory and its time."""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline_sdg.main import main

from pipeline.config import resolve
from pipeline.home import workspace
from pipeline.run.files import write_jsonl
from pipeline.run.stage import execute

_SENTENCES, _WORDS = 12, 12
_ROWS_IN_A_FILE = 1000


@dataclass(frozen=True)
class Streamed:
    """`peak` and `begin`: MiB of resident memory, at most and before the stage began."""

    seconds: float
    cpu: float
    begin: float
    peak: float
    pairs: int


def write_corpus(folder: Path, documents: int) -> int:
    """Documents of some 900 characters in JSON Lines files, of words of the demo corpus; returns all characters."""
    text = " ".join(path.read_text() for path in sorted((workspace() / "data/demo/corpus").rglob("*.md"))[:20])
    words = sorted({word for word in text.lower().split() if word.isalpha()})
    chance, characters = random.Random(1), 0

    def row(number: int) -> dict[str, str]:
        nonlocal characters
        sentences = [
            f"Unit U{number}-{part} {' '.join(chance.choices(words, k=_WORDS))}." for part in range(_SENTENCES)
        ]
        characters += len(" ".join(sentences))
        return {"_id": str(number), "title": f"Unit U{number}", "text": " ".join(sentences)}

    for first in range(0, documents, _ROWS_IN_A_FILE):
        rows = (row(number) for number in range(first, min(first + _ROWS_IN_A_FILE, documents)))
        write_jsonl(folder / f"part-{first:07d}.jsonl", rows)
    return characters


def stream(corpus: Path, run_dir: Path, url: str, parallel: int) -> Streamed:
    """Run the stage in this process: one call and one pair for each document."""
    overrides = [
        f"run_dir={run_dir}", f"corpus_dir={corpus}", "file_extensions=.jsonl", f"base_url={url}", "provider=test",
        "embed_model=null", "artifacts=false", "quality_judge=none", "num_pairs=1", "min_complexity=1",
        f"max_parallel_requests_for_gen={parallel}", "query_counts={contextual: 1}", "reasoning_counts={factual: 1}",
    ]  # fmt: skip
    begin, clock, cpu = _peak(), time.perf_counter(), time.process_time()
    execute(resolve("embed", "sdg", "default", overrides), main)
    took, used = time.perf_counter() - clock, time.process_time() - cpu
    manifest = json.loads((run_dir / "stage0_sdg" / "manifest.json").read_text())
    return Streamed(took, used, begin, _peak(), manifest["counts"]["pairs_kept"])


def _peak() -> float:
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes / (2**20 if sys.platform == "darwin" else 2**10)

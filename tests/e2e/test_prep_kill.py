"""`kill -9` in the middle of prep: the same command again finishes the run and encodes no finished shard twice."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WAIT_SECONDS = 300
PASSAGES, SHARD = 240, 16
OUTPUTS = (
    "train.json",
    "val.json",
    "train_mined.automodel.json",
    "train_mined.automodel_unrolled.json",
    "eval_beir/corpus.jsonl",
    "eval_beir/queries.jsonl",
    "eval_beir/qrels/test.tsv",
    "corpus/train.parquet",
)

# The stage's own process with shards small enough to be killed between two. With a second argument it stops for good
# before it mines val, and says so in a file: mining a small corpus takes no time to be killed in.
_PROGRAM = f"""
import sys, time
from pathlib import Path
from pipeline.retrieval import encode_corpus
from pipeline_prep import main
encode_corpus._SHARD_TEXTS = {SHARD}
if len(sys.argv) > 2:
    said, mine, calls = Path(sys.argv.pop()), main.mine, []
    def stopped(*args, **more):
        calls.append(mine(*args, **more))
        said.write_text("mining")
        time.sleep(600)
    main.mine = stopped
sys.argv[1:1] = ["--config"]
main.cli()
"""


class Prep:
    """One run directory; every command is a process of its own."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / name / "stage1_data_prep"
        self.store = root / name / "cache"
        self.handoff = root / name / "handoff.yaml"
        self.source = root / "sdg"
        if not self.source.exists():
            self.source.mkdir()
            (self.source / "generated_batch0_0_79.json").write_text(json.dumps(records()))
        from pipeline.config import resolve
        from pipeline.run.handoff import write_handoff

        settings = [f"run_dir={root / name}", f"sdg_input_path={self.source}", f"cache_embeddings_dir={self.store}",
                    "round_trip_top_k=null", "device=cpu", "precision=fp32"]  # fmt: skip
        self.resolved = resolve("embed", "prep", "demo", settings)
        write_handoff(self.resolved, self.handoff)

    def start(self, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _PROGRAM, str(self.handoff), *more]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self) -> None:
        process = self.start()
        _, said = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, said

    def kill_when(self, reached: Callable[[], bool], *more: str) -> None:
        process = self.start(*more)
        deadline = time.monotonic() + WAIT_SECONDS
        while not reached():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    def shards(self) -> dict[str, tuple[int, int]]:
        """Path -> (inode, time of change) of the vectors of every finished shard."""
        found = [path for path in self.store.rglob("vectors.npy") if not path.parent.name.startswith(".")]
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}

    def log(self) -> str:
        return (self.folder / "logs" / "latest.log").read_text()

    def encoded(self, kind: str) -> int:
        """Texts that the last run gave to the model."""
        found = re.search(rf"encoded ([\d,]+) {kind} texts", self.log())
        return int(found.group(1).replace(",", "")) if found else 0

    def outputs(self) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in OUTPUTS}

    @property
    def state(self) -> str:
        from pipeline.run.freshness import status_of

        return status_of(self.resolved).state


def records() -> list[dict]:
    """Eighty documents of three passages and two questions each, all of made-up sentences."""
    draw = random.Random(4)
    words = ("river", "stone", "lamp", "engine", "garden", "signal", "copper", "winter", "ledger", "violin", "pepper")

    def sentence(count: int) -> str:
        return " ".join(f"{draw.choice(words)}{draw.randrange(40)}" for _ in range(count))

    return [
        {
            "file_name": [f"doc{number}.txt"],
            "chunks": [{"chunk_id": n, "text": sentence(60)} for n in (1, 2, 3)],
            "deduplicated_qa_pairs": [
                {"question": f"What of {sentence(8)}?", "answer": sentence(3), "segment_ids": [n]} for n in (1, 2)
            ],
            "qa_evaluations": {"evaluations": [{"overall": {"score": 9}}] * 2},
        }
        for number in range(PASSAGES // 3)
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("prep")


@pytest.fixture(scope="module")
def undisturbed(root):
    prep = Prep(root, "undisturbed")
    prep.finish()
    return prep


def test_killed_while_encoding_it_encodes_only_what_is_missing(root, undisturbed):
    prep = Prep(root, "encoding")
    prep.kill_when(lambda: len(prep.shards()) >= 4)
    kept = prep.shards()
    assert prep.state == "partial" and not (prep.folder / "train.json").exists()

    prep.finish()
    assert kept.items() <= prep.shards().items(), "no finished shard was written again"
    held = sum(len(np.load(path, mmap_mode="r")) for path in kept if "/passage/" in path)
    assert held >= 4 * SHARD and prep.encoded("passage") == PASSAGES - held
    assert f"{held:,} of {PASSAGES:,} passage vectors are there already" in prep.log()
    assert prep.state == "done" and prep.outputs() == undisturbed.outputs()


def test_killed_while_mining_it_encodes_nothing_again(root, undisturbed):
    prep, said = Prep(root, "mining"), root / "said"
    prep.kill_when(said.exists, str(said))
    kept = prep.shards()
    assert kept and prep.state == "partial" and not (prep.folder / "train_mined.automodel.json").exists()

    prep.finish()
    assert prep.shards() == kept
    assert prep.encoded("passage") == prep.encoded("query") == 0
    assert prep.state == "done" and prep.outputs() == undisturbed.outputs()


def test_shards_cut_off_and_left_behind_are_encoded_again_and_no_other(root, undisturbed):
    """What a machine that lost its power may leave: a file without its end, and a folder that never got its name."""
    before, outputs = undisturbed.shards(), undisturbed.outputs()
    broken = Path(sorted(path for path in before if "/passage/" in path)[1])
    rows = len(np.load(broken, mmap_mode="r"))
    broken.write_bytes(broken.read_bytes()[:-100])
    left = broken.parent.parent / ".shard-left"
    left.mkdir()
    (left / "vectors.npy").write_bytes(b"half")

    undisturbed.finish()
    assert undisturbed.encoded("passage") == rows and undisturbed.encoded("query") == 0
    after = undisturbed.shards()
    assert {path for path in before if after[path] != before[path]} == {str(broken)}
    assert undisturbed.outputs() == outputs

"""A real stage in a container: uv makes its environment there from this machine's cache, without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import resolve
from pipeline.execution.plan import uv_command
from pipeline.run.freshness import status_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SUBJECTS = ("valve", "sensor", "filter", "pump", "relay", "nozzle", "gasket", "burner", "damper", "coupling")


def records() -> list[dict]:
    """Ten documents of one passage with two questions each."""
    made = []
    for number, name in enumerate(SUBJECTS):
        text = f"The {name} is checked every {number + 2} weeks. It is replaced after {number + 3} years."
        pairs = [
            {
                "question": question, "answer": answer, "question_complexity": 3, "query_type": "factual",
                "segment_ids": [1], "hop_count": 1,
            }
            for question, answer in (
                (f"How often is the {name} checked?", f"every {number + 2} weeks"),
                (f"When is the {name} replaced?", f"after {number + 3} years"),
            )
        ]  # fmt: skip
        chunk = {"chunk_id": 1, "text": text}
        made.append({"file_name": [f"{name}.txt"], "chunks": [chunk], "deduplicated_qa_pairs": pairs})
    return made


def test_prep_runs_in_a_container_as_it_would_here(tmp_path: Path, python_image, monkeypatch):
    cache = subprocess.run([uv_command(), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "sdg").mkdir()
    (tmp_path / "sdg" / "generated_batch0_0_9.json").write_text(json.dumps(records()))
    (tmp_path / "env.toml").write_text(
        f'[box]\nexecutor = "docker"\ncontainer_image = "{python_image}"\nstate_dir = "./state"\n'
        f'mounts = ["{cache}:/uv-cache"]\n[box.env_vars]\nUV_CACHE_DIR = "/uv-cache"\nUV_OFFLINE = "1"\n'
        'UV_LINK_MODE = "symlink"\nUV_PYTHON_DOWNLOADS = "never"\nOMP_NUM_THREADS = "1"\n'
    )
    overrides = ["sdg_input_path=./sdg", "run_dir=./output/mine"]
    command = [sys.executable, "-m", "pipeline", "rerank", "prep", "-c", "smoke", *overrides, "--run", "box"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500)
    if "offline" in ran.stderr or "not found in the cache" in ran.stderr:
        pytest.skip(f"UV'S CACHE LACKS WHEELS of the stage, it was not run in a container: {ran.stderr[-500:]}")
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    made = tmp_path / "output" / "mine" / "stage1_prep" / "train_mined.automodel_unrolled.json"
    assert json.loads(made.read_text())["data"] and made.stat().st_uid == os.getuid()
    monkeypatch.chdir(tmp_path)
    assert status_of(resolve("rerank", "prep", "smoke", overrides)).state == "done"

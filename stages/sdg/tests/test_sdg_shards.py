"""Parts of one run, each in a folder of its own, and the run that puts them together; a preview."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.run.handoff import write_handoff
from pipeline.run.lock import stage_lock
from pipeline.run.manifest import Manifest

Stage = Callable[..., Path]
WAIT_SECONDS = 60
OF_ONE_RUN = ("usage.json", "manifest.json", "journal", "logs/", "shards/", "preview/", ".")
"""Files whose names begin so tell of one run, not of its result."""
LABELS = ("check_answers=true", "pooled_judging=2", "batch_size=2")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Seven documents: no number of shards in these tests divides them evenly."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("alpha", "beta", "gamma", "delta", "kappa", "sigma", "omega"):
        lines = [f"The {name} valve number {number} opens at {number + 2} bar." for number in range(6)]
        (folder / f"{name}.md").write_text(f"# {name.title()} unit\n\n" + " ".join(lines) + "\n")
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(OF_ONE_RUN)}


def usage(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "usage.json").read_text())["total"]


def whole(stage: Stage, tmp_path: Path, *more: str) -> dict[str, bytes]:
    """The output of a run without shards, in a folder of its own."""
    stage(f"run_dir={tmp_path / 'whole'}", *LABELS, *more)
    found = outputs(tmp_path / "whole" / "stage0_sdg")
    assert len([name for name in found if name.startswith("generated_batch")]) == 4
    return found


def test_shards_one_after_the_other_make_the_same_run(stage: Stage, endpoint: Any, tmp_path: Path) -> None:
    expected = whole(stage, tmp_path)
    for number in (3, 1, 2):
        folder = stage(*LABELS, f"shard={number}/3")
        part = folder / "shards" / f"{number}-of-3"
        manifest = Manifest.load(part)
        assert manifest is not None and manifest.counts["documents"] == (3 if number == 1 else 2)
        assert not outputs(folder)
    endpoint.calls.clear()
    folder = stage(*LABELS)
    assert endpoint.calls.total() == 0 and usage(folder)["calls_made"] == 0
    assert outputs(folder) == expected


def test_shards_at_the_same_time_make_the_same_run(stage: Stage, endpoint: Any, corpus: Path, tmp_path: Path) -> None:
    expected = whole(stage, tmp_path)
    about = [f"run_dir={tmp_path / 'run'}", f"corpus_dir={corpus}", f"base_url={endpoint.url}", "provider=test"]
    processes = []
    for number in (1, 2):
        shard = [*about, "num_pairs=2", "max_retries=1", "allow_remote=no", *LABELS, f"shard={number}/2"]
        handoff = write_handoff(resolve("embed", "sdg", "default", shard), tmp_path / f"{number}.yaml")
        command = [sys.executable, "-m", "pipeline_sdg.main", "--config", str(handoff)]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, said = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, said
    endpoint.calls.clear()
    folder = stage(*LABELS)
    assert endpoint.calls.total() == 0
    assert outputs(folder) == expected


def test_what_a_shard_has_not_done_is_done_by_the_run_that_merges(stage: Stage, endpoint: Any, tmp_path: Path) -> None:
    expected = whole(stage, tmp_path, "embed_model=null")
    everything = sum(endpoint.calls.values())
    endpoint.calls.clear()
    stage(*LABELS, "embed_model=null", "shard=2/3")
    paid = endpoint.calls.total()
    assert 0 < paid < everything
    folder = stage(*LABELS, "embed_model=null")
    assert endpoint.calls.total() == everything
    assert outputs(folder) == expected


def test_a_question_of_two_shards_is_kept_once(stage: Stage, endpoint: Any) -> None:
    usual = endpoint.content

    def content(role: str, body: dict[str, Any]) -> str:
        value = json.loads(usual(role, body))
        if role == "qa_generation":
            value["pairs"][0]["question"] = "Which pressure opens the valve of every unit at once?"
        return json.dumps(value)

    endpoint.content = content
    for number in (1, 2, 3):
        stage("num_pairs=1", f"shard={number}/3")
    endpoint.calls.clear()
    folder = stage("num_pairs=1")
    manifest = Manifest.load(folder)
    assert manifest is not None and manifest.counts["pairs_kept"] == 1 and endpoint.calls.total() == 0
    assert sum(json.loads(line)["role"] == "dedup" for line in (folder / "rejected.jsonl").open()) == 6


def test_shards_are_not_merged_while_one_is_under_way(stage: Stage, endpoint: Any) -> None:
    folder = stage("shard=1/2")
    paid = endpoint.calls.total()
    with stage_lock(folder / "shards" / "2-of-2"), pytest.raises(PipelineError, match=r"under way: shards/2-of-2"):
        stage()
    assert endpoint.calls.total() == paid and not outputs(folder)
    assert outputs(stage())


def test_no_shard_begins_beside_a_run_of_the_whole_folder(stage: Stage, endpoint: Any, tmp_path: Path) -> None:
    with stage_lock(tmp_path / "run" / "stage0_sdg"), pytest.raises(PipelineError, match="stage0_sdg is under way"):
        stage("shard=1/2")
    assert endpoint.calls.total() == 0


def test_a_batch_of_an_unfinished_shard_is_waited_for(stage: Stage, endpoint: Any, tmp_path: Path) -> None:
    batches = tmp_path / "run" / "stage0_sdg" / "shards" / "1-of-2" / "batches"
    batches.mkdir(parents=True)
    (batches / "one.json").write_text("{}")
    with pytest.raises(PipelineError, match="has batches under way"):
        stage("batch_api=true")
    assert endpoint.calls.total() == 0


def test_a_shard_without_a_window_is_no_failure(stage: Stage) -> None:
    folder = stage("shard=3/3", "max_windows=1")
    manifest = Manifest.load(folder / "shards" / "3-of-3")
    assert manifest is not None and manifest.failure is None and manifest.counts["windows"] == 0


def test_what_a_preview_paid_for_no_shard_pays_again(stage: Stage, endpoint: Any) -> None:
    stage("preview=true", "embed_model=null")
    paid = dict(endpoint.answered)
    stage("shard=1/3", "embed_model=null")
    assert paid and all(endpoint.answered[prompt] == count for prompt, count in paid.items())


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5"])
def test_a_shard_is_one_of_so_many(shard: str) -> None:
    with pytest.raises(PipelineError, match="expected I/N with I from 1 to N"):
        resolve("embed", "sdg", "default", [f"shard={shard}"])


def test_more_shards_than_documents_leave_some_empty(stage: Stage, endpoint: Any) -> None:
    folder = stage("shard=8/8")
    manifest = Manifest.load(folder / "shards" / "8-of-8")
    assert manifest is not None and manifest.counts["documents"] == 0 and endpoint.calls.total() == 0


def test_a_preview_shows_one_record_and_is_not_paid_for_again(
    stage: Stage, endpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = whole(stage, tmp_path)
    everything = sum(endpoint.calls.values())
    endpoint.calls.clear()
    capsys.readouterr()
    folder = stage(*LABELS, "preview=true")
    shown = "".join(capsys.readouterr())
    record = json.loads((folder / "preview" / "preview.json").read_text())
    assert record["deduplicated_qa_pairs"]
    assert all(pair["question"] in shown for pair in record["deduplicated_qa_pairs"])
    assert {path.name for path in folder.iterdir()} == {"preview"}
    paid = endpoint.calls.total()
    assert 0 < paid < everything
    stage(*LABELS)
    assert usage(folder)["calls_made"] < everything and usage(folder)["calls_reused"] > 0
    assert set(endpoint.answered.values()) <= {1, 2}  # once here, once in the whole run
    assert outputs(folder) == expected

"""The whole stage against the fake endpoint: files, resume after a kill, partial failures."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.records.sdg import read_records
from pipeline.run.handoff import write_handoff
from pipeline.run.manifest import Manifest

Stage = Callable[..., Path]


def usage(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "usage.json").read_text())["total"]


def records(folder: Path) -> list[dict[str, Any]]:
    return [record for _, record in read_records(folder)]


def test_records_follow_the_published_schema(stage: Stage, endpoint: Any) -> None:
    folder = stage("batch_size=2")
    assert sorted(path.name for path in folder.glob("generated*")) == [
        "generated_batch0_0_1.json",
        "generated_batch1_2_2.json",
    ]
    found = records(folder)
    assert [record["file_name"] for record in found] == [["alpha.md"], ["beta.md"], ["gamma.md"]]
    assert list(found[0]) == [
        "file_name",
        "source_id",
        "text",
        "chunks",
        "sections_structured",
        "bundle_id",
        "bundle_members",
        "is_multi_doc",
        "document_artifacts",
        "qa_generation",
        "deduplicated_qa_pairs",
        "qa_evaluations",
    ]
    assert (found[0]["bundle_id"], found[0]["bundle_members"], found[0]["is_multi_doc"]) == ("", [], False)
    assert len(found[0]["document_artifacts"]) == 8
    assert [chunk["chunk_id"] for chunk in found[0]["chunks"]] == [1, 2]
    for record in found:
        assert len(record["deduplicated_qa_pairs"]) == len(record["qa_evaluations"]["evaluations"]) == 2
        assert {item["overall"]["score"] for item in record["qa_evaluations"]["evaluations"]} == {8.0}
    assert endpoint.calls == {"artifact_extraction": 3, "qa_generation": 3, "embed": 1, "quality_judge": 6}
    manifest = Manifest.load(folder)
    assert manifest is not None
    assert set(manifest.outputs) == {
        "generated_batch0_0_1.json",
        "generated_batch1_2_2.json",
        "my_corpus.jsonl",
        "generation_result.json",
        "usage.json",
        "funnel.json",
        "coverage.jsonl",
        "rejected.jsonl",
    }
    assert manifest.counts["pairs_kept"] == 6
    cited = {
        (record["source_id"], number)
        for record in found
        for pair in record["deduplicated_qa_pairs"]
        for number in pair["segment_ids"]
    }
    asked_about = sum(len(record["chunks"]) for record in found)
    counted = manifest.counts["passages_with_question"], manifest.counts["passages_asked_about"]
    assert counted == (len(cited), asked_about) and 0 < len(cited) <= asked_about


def test_a_second_run_pays_only_for_what_is_new(stage: Stage, endpoint: Any, corpus: Path) -> None:
    stage("num_files=2")
    paid = endpoint.calls.total()
    folder = stage("num_files=2", "batch_size=1")
    assert endpoint.calls.total() == paid
    assert usage(folder)["calls_made"] == 0
    assert len(list(folder.glob("generated*"))) == 2  # the batch of the first run is gone
    stage()
    assert endpoint.calls["qa_generation"] == 3
    text = (corpus / "beta.md").read_text()
    (corpus / "beta.md").write_text(text.replace("7 bar", "9 bar"))
    stage()
    assert endpoint.calls["qa_generation"] == 4
    assert "9 bar" in json.dumps(endpoint.requests[-2]) + json.dumps(endpoint.requests[-4])


@pytest.mark.parametrize("after", [1, 5])
def test_a_killed_run_repeats_no_finished_call(
    tmp_path: Path, corpus: Path, endpoint: Any, stage: Stage, after: int
) -> None:
    endpoint.delay = 0.15
    overrides = [
        f"run_dir={tmp_path / 'run'}",
        f"corpus_dir={corpus}",
        f"base_url={endpoint.url}",
        "provider=test",
        "num_pairs=2",
        "max_retries=1",
        "allow_remote=no",
        "max_parallel_requests_for_gen=2",
    ]
    handoff = write_handoff(resolve("embed", "sdg", "default", overrides), tmp_path / "config.yaml")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline_sdg.main", "--config", str(handoff)], stderr=subprocess.DEVNULL
    )
    journal = tmp_path / "run" / "stage0_sdg" / "journal.sqlite"
    deadline = time.monotonic() + 60
    while journaled(journal) < after and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept, answered = journaled(journal), dict(endpoint.answered)
    assert kept >= after
    assert not list(journal.parent.glob("generated*"))
    endpoint.delay = 0
    folder = stage("max_parallel_requests_for_gen=2")
    assert usage(folder)["calls_reused"] == kept
    assert usage(folder)["calls_made"] + kept == 13
    repeated = sum(endpoint.answered[prompt] - 1 for prompt in answered)
    assert repeated <= 2  # at most the calls under way at the kill


def journaled(path: Path) -> int:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            return db.execute("SELECT count(*) FROM calls").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def test_one_pair_that_cannot_be_judged_loses_nothing(stage: Stage, endpoint: Any) -> None:
    def bad_judge(body: dict[str, Any], number: int) -> Any:
        asked = json.dumps(body["messages"]).partition("NEIGHBOURS")[0] if "messages" in body else ""
        return (
            (200, {}, endpoint.chat("no scores")) if "You judge" in asked and "alpha valve number 0" in asked else None
        )

    endpoint.misbehave = bad_judge
    folder = stage()
    scores = [
        item["overall"]["score"] for record in records(folder) for item in record["qa_evaluations"]["evaluations"]
    ]
    assert sorted(scores, key=lambda score: score or 0) == [None, 8.0, 8.0, 8.0, 8.0, 8.0]
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert [(item["role"], item["document"], item["reply"]) for item in rejected] == [
        ("quality_judge", "alpha.md", "no scores")
    ]


def test_unjudged_pairs_are_kept_with_null(stage: Stage, endpoint: Any) -> None:
    folder = stage("quality_judge=none", "artifacts=false", "embed_model=null")
    assert endpoint.calls == {"qa_generation": 3}
    for record in records(folder):
        assert all(not items for items in record["document_artifacts"].values())
        assert [item["overall"]["score"] for item in record["qa_evaluations"]["evaluations"]] == [None, None]


def test_good_pairs_are_salvaged_and_the_rest_is_on_the_ledger(stage: Stage, endpoint: Any) -> None:
    def content(body: dict[str, Any], number: int) -> Any:
        if "messages" not in body or "exactly 2" not in body["messages"][0]["content"]:
            return None
        good = endpoint.pair(1, body["messages"][0]["content"])
        return 200, {}, endpoint.chat(json.dumps({"pairs": [good, {**good, "segment_ids": [99]}]}))

    endpoint.misbehave = content
    folder = stage("artifacts=false", "quality_judge=none", "embed_model=null")
    assert [len(record["deduplicated_qa_pairs"]) for record in records(folder)] == [1, 1, 1]
    assert endpoint.calls["qa_generation"] == 6  # each window had its one repair turn
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert any("segment_ids must be some of" in item["reason"] for item in rejected)
    assert all(item["finish_reason"] == "stop" and item["reply"] for item in rejected)


def test_the_same_question_is_dropped_across_documents(stage: Stage, endpoint: Any) -> None:
    endpoint.content = lambda role, body: json.dumps({"pairs": [endpoint.pair(1, "same for all")]})
    folder = stage("artifacts=false", "quality_judge=none", "embed_model=null", "num_pairs=1")
    assert [len(record["qa_generation"]["pairs"]) for record in records(folder)] == [1, 1, 1]
    assert [len(record["deduplicated_qa_pairs"]) for record in records(folder)] == [1, 0, 0]


def test_windows_are_merged_into_one_record(stage: Stage, endpoint: Any) -> None:
    folder = stage("window_chunks=1", "num_pairs=1", "quality_judge=none")
    assert endpoint.calls["qa_generation"] == 6
    assert [[pair["segment_ids"] for pair in record["deduplicated_qa_pairs"]] for record in records(folder)] == [
        [[1], [2]]
    ] * 3


def test_a_window_without_answer_gets_a_second_try(stage: Stage, endpoint: Any) -> None:
    failed: list[int] = []

    def once(body: dict[str, Any], number: int) -> Any:
        if "beta valve" in json.dumps(body.get("messages", "")) and not failed:
            failed.append(number)
            return 500, {}, "{}"
        return None

    endpoint.misbehave = once
    folder = stage("artifacts=false", "quality_judge=none", "embed_model=null", "max_retries=0")
    assert failed
    assert [len(record["deduplicated_qa_pairs"]) for record in records(folder)] == [2, 2, 2]


def test_a_dead_endpoint_stops_the_stage_and_the_next_run_goes_on(stage: Stage, endpoint: Any) -> None:
    endpoint.misbehave = lambda body, number: (401, {}, "{}") if number > 4 else None
    with pytest.raises(PipelineError, match="refused the API key"):
        stage("max_parallel_requests_for_gen=1")
    endpoint.misbehave = lambda body, number: None
    assert usage(stage())["calls_reused"] == 4


def test_a_missing_key_and_a_remote_host_stop_before_the_first_call(
    stage: Stage, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NVIDIA_API_KEY", raising=False)
    monkeypatch.delenv("NVIDIA_API_BASE_URL", raising=False)
    with pytest.raises(PipelineError, match="NVIDIA_API_KEY"):
        stage("base_url=null", "provider=nvidia")
    with pytest.raises(PipelineError, match="3 documents"):
        stage("base_url=https://llm.example/v1")
    assert endpoint.calls.total() == 0


def test_no_key_reaches_the_disk(stage: Stage, endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDG_TEST_KEY", "very-secret-key")
    folder = stage("api_key_env=SDG_TEST_KEY")
    assert all("very-secret-key" in item["authorization"] for item in endpoint.headers)
    for path in folder.rglob("*"):
        assert not path.is_file() or b"very-secret-key" not in path.read_bytes(), path


def test_nothing_usable_is_a_failure(stage: Stage, endpoint: Any) -> None:
    endpoint.content = lambda role, body: "I cannot help with that."
    folder = stage("artifacts=false", "quality_judge=none", "embed_model=null")
    assert (folder / "rejected.jsonl").read_text().count("\n") > 0
    assert sum(len(record["deduplicated_qa_pairs"]) for record in records(folder)) == 0

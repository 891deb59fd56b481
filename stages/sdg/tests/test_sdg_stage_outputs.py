"""What a run leaves beside its records: hand-off, coverage, funnel, usage of a run that ended early."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.records.sdg import HANDOFF, read_records
from pipeline.run.manifest import Manifest

Stage = Callable[..., Path]
PLAIN = ("artifacts=false", "quality_judge=none", "embed_model=null")


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_hand_off_leads_to_the_same_records(stage: Stage) -> None:
    folder = stage(*PLAIN, "batch_size=2", "corpus_id=My corpus/1")
    assert json.loads((folder / HANDOFF).read_text()) == {
        "schema_version": 1,
        "dataset_name": "My_corpus_1",
        "output_path": "My_corpus_1.jsonl",
    }
    by_hand_off = [record for _, record in read_records(folder / HANDOFF)]
    assert by_hand_off == [record for _, record in read_records(folder)] and len(by_hand_off) == 3
    assert (stage(*PLAIN, "dataset_name=other") / "other.jsonl").is_file()


def test_coverage_names_the_passages_without_a_question(stage: Stage, endpoint: Any) -> None:
    endpoint.pairs = 1
    folder = stage(*PLAIN, "num_pairs=1")
    assert lines(folder / "coverage.jsonl") == [
        {"file_name": [name], "passages": 2, "passages_asked_about": 2, "without_question": [2]}
        for name in ("alpha.md", "beta.md", "gamma.md")
    ]


def test_the_funnel_adds_up(stage: Stage, endpoint: Any) -> None:
    good = [endpoint.pair(1, "x"), endpoint.pair(2, "y")]
    endpoint.content = lambda role, body: (
        json.dumps({"pairs": [*good, {**good[0], "question_complexity": 9}]})
        if role == "qa_generation"
        else json.dumps(endpoint.judgement(body["messages"][0]["content"]))
    )
    folder = stage("artifacts=false", "embed_model=null", "num_pairs=3", "check_answers=true")
    funnel = json.loads((folder / "funnel.json").read_text())
    written, rejected = funnel["pairs"]["written"], funnel["rejected"]
    assert written == 6 and funnel["pairs"]["duplicates"] == 4 and funnel["pairs"]["kept"] == 2
    assert rejected["dedup"] == {"asks the same as another": 4}
    assert rejected["qa_generation"]["question_complexity must be N to N"] == 3
    assert funnel["types"]["written"]["query_type"] == {"contextual": 6}
    assert funnel["types"]["kept"]["question_complexity"] == {"3": 2}
    assert funnel["overall_scores"] == {"8": 2} and funnel["answerable"] == {"true": 2}
    assert funnel["repair_turns"]["qa_generation"] == {"turns": 3, "share": 1.0}
    assert funnel["corpus"]["usable"] == 3 and len(funnel["corpus"]["sha256"]) == 64
    assert len(lines(folder / "rejected.jsonl")) == sum(
        sum(found.values()) for kind in ("rejected", "remarks") for found in funnel[kind].values()
    )
    manifest = Manifest.load(folder)
    assert manifest is not None and manifest.counts["pairs_kept"] == 2


def test_a_run_that_ends_early_says_what_it_used(stage: Stage, endpoint: Any, tmp_path: Path) -> None:
    endpoint.misbehave = lambda body, number: (401, {}, "{}") if number > 2 else None
    with pytest.raises(PipelineError, match="refused the API key"):
        stage(*PLAIN, "max_parallel_requests_for_gen=1")
    used = json.loads((tmp_path / "run" / "stage0_sdg" / "usage.json").read_text())
    assert (used["complete"], used["total"]["calls_made"]) == (False, 2)
    endpoint.misbehave = lambda body, number: None
    used = json.loads((stage(*PLAIN) / "usage.json").read_text())
    assert (used["complete"], used["total"]["calls_made"], used["total"]["calls_reused"]) == (True, 1, 2)


def test_a_name_that_another_file_has_is_refused(stage: Stage) -> None:
    for name in ("rejected", "../x", ".hidden", "a/b"):
        with pytest.raises(PipelineError, match="dataset_name"):
            stage(f"dataset_name={name}")


def test_a_preview_shows_one_record_and_touches_nothing_else(
    stage: Stage, endpoint: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stage("preview=true")
    assert sorted(path.name for path in folder.iterdir()) == ["preview"]
    shown = json.loads((folder / "preview" / "preview.json").read_text())
    assert shown["file_name"] == ["alpha.md"] and len(shown["deduplicated_qa_pairs"]) == 2
    assert shown["deduplicated_qa_pairs"][0]["question"] in capsys.readouterr().out
    paid = endpoint.calls.total()
    stage()
    assert endpoint.calls["qa_generation"] == 3 and set(endpoint.answered.values()) == {1}
    assert endpoint.calls.total() > paid and not list((folder / "preview").glob("generated*"))

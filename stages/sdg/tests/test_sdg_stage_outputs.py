"""What a run leaves beside its records: hand-off, coverage, funnel, usage of a run that ended early."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import resolve
from pipeline.errors import PipelineError
from pipeline.records.sdg import HANDOFF, read_records
from pipeline.run.freshness import status_of
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


def test_records_of_an_earlier_run_go_all_together(
    stage: Stage, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stage(*PLAIN, "batch_size=2", "dataset_name=first")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline_sdg.output._line", full)
        with pytest.raises(OSError, match="No space"):
            stage(*PLAIN, "batch_size=1", "dataset_name=second")
    records = {name for name in before if name.startswith(("generated", "first"))}
    assert all((folder / name).read_bytes() == before[name] for name in records)
    stage(*PLAIN, "batch_size=3", "dataset_name=second")
    left = sorted(
        path.name for path in folder.iterdir() if path.name.startswith(("generated", "first", "second", ".f"))
    )
    assert left == ["generated_batch0_0_2.json", "second.jsonl"]


def test_a_file_whose_name_cannot_be_written_is_listed(stage: Stage, corpus: Path) -> None:
    (corpus / os.fsdecode(b"caf\xe9.md")).write_text((corpus / "alpha.md").read_text() + "More.")
    funnel = json.loads((stage(*PLAIN) / "funnel.json").read_text())
    assert funnel["corpus"]["left_out"]["unreadable"] == 1 and funnel["corpus"]["usable"] == 3


def test_a_preview_takes_the_first_document_that_has_a_passage(stage: Stage, corpus: Path) -> None:
    (corpus / "aaa.md").write_text("=" * 80 + "\n" + "-" * 80 + "\n")
    shown = json.loads((stage(*PLAIN, "preview=true") / "preview" / "preview.json").read_text())
    assert shown["file_name"] == ["alpha.md"] and shown["deduplicated_qa_pairs"]


@pytest.mark.parametrize("more", [(), ("preview=true",), ("shard=1/2",)])
def test_a_corpus_without_a_sentence_is_one_clear_error(
    stage: Stage, endpoint: Any, corpus: Path, more: tuple[str, ...]
) -> None:
    for number, path in enumerate(sorted(corpus.iterdir())):
        path.write_text("=" * (80 + number) + "\n")
    with pytest.raises(PipelineError, match="none of the 3 documents holds a sentence to ask about"):
        stage(*more)
    assert endpoint.calls.total() == 0


def test_an_answer_without_any_pair_does_not_end_the_chain(stage: Stage, endpoint: Any) -> None:
    endpoint.pairs = 0
    stage(*PLAIN, "num_pairs=2", "repair=false")
    endpoint.pairs = 2
    folder = stage(*PLAIN, "num_pairs=4", "repair=false")
    assert [len(record["deduplicated_qa_pairs"]) for _, record in read_records(folder)] == [2, 2, 2]


def test_failed_artifacts_do_not_make_pairs_be_paid_twice(stage: Stage, endpoint: Any) -> None:
    endpoint.misbehave = lambda body, number: (
        (400, {}, "no") if endpoint.role_of("", body) == "artifact_extraction" else None
    )
    stage("quality_judge=none", "embed_model=null")
    endpoint.misbehave = lambda body, number: None
    endpoint.calls.clear()
    stage("quality_judge=none", "embed_model=null")
    assert endpoint.calls == {"artifact_extraction": 3}


def test_a_prompt_profile_is_part_of_what_was_made(stage: Stage, tmp_path: Path, corpus: Path, endpoint: Any) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "repair.txt").write_text("Mend it: $problems")
    stage(*PLAIN, f"prompt_profiles={{.rst: support, .md: {mine}}}")

    def state(*overrides: str) -> str:
        return status_of(resolve("embed", "sdg", "default", [*base, *PLAIN, *overrides])).state

    base = [f"run_dir={tmp_path / 'run'}", f"corpus_dir={corpus}", f"base_url={endpoint.url}", "provider=test"]
    base += ["num_pairs=2", "max_retries=1", "allow_remote=no"]
    given = f"prompt_profiles={{.rst: support, .md: {mine}}}"
    assert state(given) == "done"
    assert state(given, "prompt_profile=support") == "stale"
    assert state(f"prompt_profiles={{.rst: reference, .md: {mine}}}") == "stale"
    assert state(f"prompt_profiles={{.txt: support, .md: {mine}}}") == "stale"
    (mine / "repair.txt").write_text("Please mend it: $problems")
    assert state(given) == "stale"


def test_a_name_that_another_file_has_is_refused(stage: Stage) -> None:
    for name in ("rejected", "../x", ".hidden", "a/b", "generated_batch0"):
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

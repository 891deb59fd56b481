"""What the judges say ends up in the records: hops, answers, further right passages; a failed label costs itself."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline_sdg.endpoints import Endpoint

from pipeline.records.passages import passage_id
from pipeline.records.sdg import read_records

Stage = Callable[..., Path]
TYPED = ("query_counts={contextual: 1}", "reasoning_counts={factual: 1}")
"""As the endpoint's `pair` is: another mix costs a repair turn."""
ONE_PAIR = ("artifacts=false", "embed_model=null", "num_pairs=1", *TYPED)
ONE_MULTI_HOP = (*ONE_PAIR, "query_counts={multi_hop: 1}")
JUDGED_BY_NOBODY = (*ONE_PAIR, "quality_judge=none")


def records(folder: Path) -> list[dict[str, Any]]:
    return [record for _, record in read_records(folder)]


def kept(folder: Path) -> list[dict[str, Any]]:
    return [pair for record in records(folder) for pair in record["deduplicated_qa_pairs"]]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return [item for record in records(folder) for item in record["qa_evaluations"]["evaluations"]]


def rejected(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


@pytest.fixture
def multi_hop(endpoint: Any) -> Any:
    """The endpoint, which now writes one question over the first two segments of every window."""
    usual = endpoint.content

    def content(role: str, body: dict[str, Any]) -> str:
        if role != "qa_generation":
            return usual(role, body)
        hops = [{"hop_number": number, "segment_ids": [number], "summary": f"fact {number}"} for number in (1, 2)]
        pair = endpoint.pair(1, body["messages"][0]["content"])
        typed = {"query_type": "multi_hop", "segment_ids": [1, 2], "hop_count": 2, "hop_contexts": hops}
        return json.dumps({"pairs": [pair | typed]})

    endpoint.content = content
    return endpoint


def fail_on(words: str) -> Callable[[dict[str, Any], int], Any]:
    """Every prompt with these words gets a server error."""
    return lambda body, number: (500, {}, "{}") if words in json.dumps(body.get("messages", "")) else None


def test_a_pair_that_needs_one_hop_is_relabelled(stage: Stage, multi_hop: Any) -> None:
    multi_hop.hops_needed = [2]
    folder = stage(*ONE_MULTI_HOP, "hop_check=relabel")
    for record in records(folder):
        [written], [pair] = record["qa_generation"]["pairs"], record["deduplicated_qa_pairs"]
        assert (written["query_type"], written["segment_ids"], written["hop_count"]) == ("multi_hop", [1, 2], 2)
        assert (pair["query_type"], pair["segment_ids"], pair["hop_count"]) == ("contextual", [2], 1)
        assert (pair["hops_needed"], pair["hop_contexts"]) == ([2], [])
    assert [item["overall"]["score"] for item in evaluations(folder)] == [8.0] * 3
    assert rejected(folder) == []


def test_a_pair_that_needs_one_hop_is_dropped_and_counted(stage: Stage, multi_hop: Any) -> None:
    usual = multi_hop.judgement

    def judgement(prompt: str) -> dict[str, Any]:
        multi_hop.hops_needed = [1] if "alpha" in prompt else [1, 2]
        return usual(prompt)

    multi_hop.judgement = judgement
    folder = stage(*ONE_MULTI_HOP, "hop_check=drop", "max_parallel_requests_for_gen=1")
    assert [len(record["qa_generation"]["pairs"]) for record in records(folder)] == [1, 1, 1]
    assert [len(record["deduplicated_qa_pairs"]) for record in records(folder)] == [0, 1, 1]
    assert [pair["hops_needed"] for pair in kept(folder)] == [[1, 2], [1, 2]]
    assert len(evaluations(folder)) == 2 and multi_hop.calls["quality_judge"] == 3 + 2  # nobody scores what is gone
    [gone] = rejected(folder)
    assert (gone["document"], gone["role"], gone["reason"]) == ("alpha.md", "hop_check", "one hop answers it")
    assert gone["item"]["segment_ids"] == [1, 2]


@pytest.mark.parametrize("supported", [True, False])
def test_the_answer_check_marks_the_pair_and_drops_none(stage: Stage, endpoint: Any, supported: bool) -> None:
    endpoint.supported = supported
    folder = stage(*ONE_PAIR, "check_answers=true")
    found = evaluations(folder)
    assert [item["answerable"] for item in found] == [supported] * 3
    assert [item["overall"]["score"] for item in found] == [8.0] * 3
    texts = [record["chunks"][0]["text"] for record in records(folder)]
    for item, text in zip(found, texts, strict=True):
        assert set(item["answer_check"]) == {"answerable", "supported", "answer", "evidence"}
        assert item["answer_check"]["evidence"][0] in text


def test_nobody_but_the_answer_check_is_asked(stage: Stage, endpoint: Any) -> None:
    folder = stage(*JUDGED_BY_NOBODY, "check_answers=true")
    assert [(item["overall"]["score"], item["answerable"]) for item in evaluations(folder)] == [(None, True)] * 3
    assert endpoint.calls["quality_judge"] == 3


def test_passages_that_answer_too_are_named_by_their_id(stage: Stage, endpoint: Any) -> None:
    endpoint.grade = 3
    folder = stage(*JUDGED_BY_NOBODY, "pooled_judging=2")
    texts = {passage_id(chunk["text"]): chunk["text"] for record in records(folder) for chunk in record["chunks"]}
    for record in records(folder):
        [pair] = record["deduplicated_qa_pairs"]
        own = passage_id(record["chunks"][pair["segment_ids"][0] - 1]["text"])
        assert pair["extra_positives"] == sorted(pair["extra_positives"])
        assert 2 <= len(pair["extra_positives"]) <= 4  # two systems: BM25 by the question and by the answer
        assert own not in pair["extra_positives"] and set(pair["extra_positives"]) < set(texts)


def test_vectors_are_a_third_system_and_low_grades_add_nothing(stage: Stage, endpoint: Any) -> None:
    endpoint.grade = 2  # a part of the answer: too little for a question of one hop
    folder = stage("artifacts=false", "num_pairs=1", "quality_judge=none", "pooled_judging=1", *TYPED)
    assert [pair["extra_positives"] for pair in kept(folder)] == [[], [], []]
    embedded = [text for body in endpoint.requests for text in body.get("input", [])]
    assert len(embedded) == 3 + 6  # questions once, whoever needs them, and every passage once


def test_without_a_pair_nothing_is_paid_for_the_pool(stage: Stage, endpoint: Any) -> None:
    endpoint.content = lambda role, body: "I cannot help with that."
    stage("artifacts=false", "pooled_judging=1")
    assert set(endpoint.calls) == {"qa_generation"}


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        ("WRITTEN ANSWER", "answerable"),
        ("hops_needed", "hops_needed"),
        ("and a grade:", "extra_positives"),
        ("Be strict.", "score"),
    ],
)
def test_a_failing_judge_call_loses_only_its_label(stage: Stage, multi_hop: Any, words: str, lost: str) -> None:
    multi_hop.grade = 3
    multi_hop.misbehave = fail_on(words)
    checks = ("check_answers=true", "hop_check=drop", "pooled_judging=1", "max_retries=0")
    folder = stage(*ONE_MULTI_HOP, *checks)
    found = evaluations(folder)
    labels = {
        "answerable": [item["answerable"] for item in found],
        "hops_needed": [pair.get("hops_needed") for pair in kept(folder)],
        "extra_positives": [bool(pair["extra_positives"]) or None for pair in kept(folder)],
        "score": [item["overall"]["score"] for item in found],
    }
    whole = {"answerable": True, "hops_needed": [1, 2], "extra_positives": True, "score": 8.0}
    assert labels == {name: [None if name == lost else value] * 3 for name, value in whole.items()}
    assert [(item["role"], item["document"]) for item in rejected(folder)] == [
        ("quality_judge", f"{name}.md") for name in ("alpha", "beta", "gamma")
    ]
    assert all(item["reason"].startswith("call failed: ") for item in rejected(folder))


@pytest.mark.parametrize("by", ["embed_model=e", "embed_model=null"])
def test_of_equal_questions_the_hardest_is_kept(stage: Stage, endpoint: Any, by: str) -> None:
    def content(role: str, body: dict[str, Any]) -> str:
        hard = 5 if "beta valve" in json.dumps(body) else 2
        return json.dumps({"pairs": [{**endpoint.pair(1, "the same for all"), "question_complexity": hard}]})

    endpoint.content = content
    folder = stage("artifacts=false", "num_pairs=1", "quality_judge=none", by, *TYPED)
    assert [len(record["deduplicated_qa_pairs"]) for record in records(folder)] == [0, 1, 0]
    assert kept(folder)[0]["question_complexity"] == 5
    assert [(item["role"], item["document"]) for item in rejected(folder)] == [
        ("dedup", "alpha.md"),
        ("dedup", "gamma.md"),
    ]
    assert {item["reason"] for item in rejected(folder)} == {"asks the same as a question of beta.md"}


def test_an_answer_is_proven_from_the_text_as_the_judge_saw_it(
    stage: Stage, endpoint: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judgement(prompt: str) -> dict[str, Any]:
        [quote] = re.findall(r"number 0 of .+? opens", prompt)
        return {"evidence": [quote], "answer": "Two bar.", "answerable": True, "supported": True}

    endpoint.judgement = judgement
    for path in corpus.iterdir():
        path.write_text(path.read_text().replace("number 0", "number 0 of jo@mail.example"))
    monkeypatch.setattr(Endpoint, "is_local", False)
    folder = stage(*JUDGED_BY_NOBODY, "check_answers=true", "redact=[email]", "allow_remote=yes")
    assert [item["answer_check"]["evidence"] for item in evaluations(folder)] == [["number 0 of [email] opens"]] * 3
    assert {item["reason"] for item in rejected(folder)} <= {"more than were asked for"}

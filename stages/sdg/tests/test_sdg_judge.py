"""The judge: what it is shown, and what of its answer counts."""

import json
from typing import Any

import pytest
from pipeline_sdg import judge
from pipeline_sdg.forms import one_line, whole_number

PAIR = {"question": "When does the pump stop?", "answer": "At 20 percent.", "segment_ids": [2]}


def chunks(*documents: str) -> list[dict[str, Any]]:
    return [
        {"chunk_id": number, "text": f"Text {number}.", "doc_id": document}
        for number, document in enumerate(documents, 1)
    ]


def reply(scores: dict[str, Any] | None = None, overall: Any = 8.5) -> str:
    given = {**dict.fromkeys(judge.CRITERIA, 8), **(scores or {})}
    parts = {name: {"justification": "j", "score": score} for name, score in given.items()}
    return json.dumps({**parts, "overall": {"assessment": "a", "score": overall}, "improvements": None})


def test_neighbours_are_shown_apart_and_only_those_of_the_same_document() -> None:
    prompt = judge.exchange(PAIR, chunks("a", "a", "b", "b")).messages[0]["content"]
    passages, _, beside = prompt.split("QUESTION\n")[0].partition("NEIGHBOURS (not cited)")
    assert "[2] Text 2." in passages and "[1]" not in passages
    assert "[1] Text 1." in beside and "[2]" not in beside and "[3]" not in beside
    alone = judge.exchange(PAIR, [{"chunk_id": 2, "text": "Text 2."}]).messages[0]["content"]
    assert "NEIGHBOURS" not in alone and "QUESTION\nWhen does the pump stop?\n\nANSWER\nAt 20 percent." in alone
    assert [chunk["chunk_id"] for chunk in judge.neighbours({"segment_ids": [1, 3]}, chunks(*"aaaaa"))] == [2, 4]


def test_the_judge_sees_under_which_headings_a_passage_stands() -> None:
    titled = [{**chunk, "title": f"Guide > Part {chunk['chunk_id']}"} for chunk in chunks("a", "a")]
    prompt = judge.exchange(PAIR, titled).messages[0]["content"]
    assert "[2] Guide > Part 2\nText 2." in prompt and "[1] Guide > Part 1\nText 1." in prompt


def test_every_criterion_of_the_rubric_has_anchors() -> None:
    prompt = judge.exchange(PAIR, chunks("a", "a")).messages[0]["content"]
    for name in judge.CRITERIA:
        anchors = prompt.split(f"- {name}:")[1].split("\n")[1]
        assert all(anchor in anchors for anchor in ("9-10", "7-8", "5-6", "3-4", "1-2")), name


def test_the_reason_is_written_before_the_score() -> None:
    parts = judge.schema()["properties"]
    assert all(list(parts[name]["properties"])[-1] == "score" for name in (*judge.CRITERIA, "overall"))


@pytest.mark.parametrize(
    ("scores", "overall", "counted"),
    [
        ({}, 8.5, 8.5),
        ({}, 10, 9.0),
        ({"accuracy": 2}, 9, 3.0),
        ({"context_support": 4}, 3, 3.0),
        ({"clarity": 1}, 9, 9.0),
    ],
)
def test_overall_is_held_to_accuracy_and_support(scores: dict[str, Any], overall: float, counted: float) -> None:
    [evaluation], faults = judge.check(reply(scores, overall))
    assert faults == [] and evaluation["overall"] == {"score": counted, "assessment": "a"}
    assert evaluation["improvements"] == ""


@pytest.mark.parametrize("score", [0, 11, -3, 7.5, "8", True, None, [8], float("nan"), float("inf"), 10**400])
def test_scores_that_are_none_are_named(score: Any) -> None:
    good, faults = judge.check(reply({"clarity": score}))
    assert good == [] and [fault.reason for fault in faults] == ["clarity.score must be a number from 1 to 10"]


def test_values_of_answers() -> None:
    assert {whole_number(value) for value in (3, 3.0, " 3 ")} == {3}
    assert {whole_number(value) for value in ("²", True, 3.5, None, "9" * 5000, float("inf"), [3])} == {None}
    assert one_line(" a\n b ") == "a b" and one_line(["a"]) == ""

"""Answerable from the cited segments alone: the request, the proof, the verdict."""

import json
from typing import Any

import pytest
from pipeline_sdg import answerability
from pipeline_sdg.exchange import ask

CHUNKS = [
    {"chunk_id": 1, "text": "The pump runs at 70 percent."},
    {"chunk_id": 2, "text": "It *stops* at 20 percent,\nbecause the basin is then empty."},
]
PAIR = {"question": "When does the pump stop?", "answer": "At 20 percent.", "segment_ids": [2]}
GOOD = {"evidence": ["It stops at 20 percent"], "answer": "At 20 %.", "answerable": True, "supported": True}


def checked(**changes: Any) -> tuple[list[dict[str, Any]], list[str]]:
    good, faults = answerability.check(json.dumps({**GOOD, **changes}), [CHUNKS[1]["text"]])
    return good, [fault.reason for fault in faults]


def test_the_model_sees_the_cited_segments_alone_and_the_written_answer_last() -> None:
    prompt = answerability.exchange(PAIR, CHUNKS).messages[0]["content"]
    assert "[2] It *stops*" in prompt and "70 percent" not in prompt
    assert prompt.index("When does the pump stop?") < prompt.index("- answerable") < prompt.index("At 20 percent.\n")
    assert list(answerability.schema()["properties"])[-1] == "supported"


def test_the_headings_above_a_segment_are_shown_and_may_be_quoted() -> None:
    request = answerability.exchange(PAIR, [{**CHUNKS[1], "title": "Pump X200 > Levels"}])
    assert "[2] Pump X200 > Levels\nIt *stops*" in request.messages[0]["content"]
    quoted = {**GOOD, "evidence": ["Pump X200", "stops at 20 percent"]}
    assert request.check(json.dumps(quoted)) == ([quoted], [])


def test_a_proven_answer_passes() -> None:
    assert checked() == ([GOOD], [])
    assert checked(evidence=["BASIN is then empty.", " "])[0][0]["evidence"] == ["BASIN is then empty."]
    no = {"answerable": False, "supported": False, "answer": "not answerable", "evidence": []}
    assert checked(**no) == ([no], [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answerable": "yes"}, "answerable must be true or false"),
        ({"supported": None}, "supported must be true or false"),
        ({"evidence": []}, "evidence quotes nothing"),
        ({"evidence": "It stops"}, "evidence quotes nothing"),
        ({"evidence": ["..."]}, "evidence quotes nothing"),
        ({"evidence": ["It stops at 20 percent", "It runs at 70 percent"]}, "stands in none: 'It runs at 70 percent'"),
        ({"answer": ""}, "answer is empty"),
        ({"answerable": False}, "cannot be supported"),
    ],
)
def test_a_verdict_without_proof_is_none(change: dict[str, Any], reason: str) -> None:
    good, faults = checked(**change)
    assert good == [] and reason in faults[0]


def test_the_verdict_is_kept_in_the_evaluation() -> None:
    evaluation = {"overall": {"score": 8.0}}
    assert answerability.with_verdict(evaluation, GOOD) == {**evaluation, "answerable": True, "answer_check": GOOD}
    assert answerability.with_verdict(evaluation, {**GOOD, "supported": False})["answerable"] is False
    assert answerability.with_verdict(evaluation, None) == {**evaluation, "answerable": None}


def test_an_invented_quote_is_told_and_mended(endpoint, calling) -> None:
    invented = {**GOOD, "evidence": ["It stops when it rains"]}
    endpoint.misbehave = lambda body, number: (200, {}, endpoint.chat(json.dumps(invented if number == 1 else GOOD)))
    request = answerability.exchange(PAIR, CHUNKS)
    outcome = calling(lambda caller: ask(caller, request, repair=True), endpoint.url)
    assert outcome.good == [GOOD]
    assert "It stops when it rains" in endpoint.requests[1]["messages"][-1]["content"]

"""All labels of one pair, asked of a real server: in which order, and what a failure costs."""

import json
from typing import Any

import pytest
from pipeline_sdg.labels import Labelled, LabelPlan, label

from pipeline.records.passages import Passage, passage_id

CHUNKS = [{"chunk_id": number, "text": f"Fact {number} of the pump."} for number in range(1, 5)]
PAIR = {
    "question": "Why does the pump stop?",
    "answer": "Because of both facts.",
    "query_type": "multi_hop",
    "segment_ids": [1, 3],
    "hop_count": 2,
    "hop_contexts": [
        {"hop_number": 1, "segment_ids": [1], "summary": "one"},
        {"hop_number": 2, "segment_ids": [3], "summary": "three"},
    ],
}
EVERYTHING = LabelPlan(check_answers=True, hop_check="relabel")
FOUND = [Passage(passage_id(text), text) for text in ("Another fact of the pump.", "The pump again.")]


@pytest.fixture
def labelled(endpoint, calling):
    def run(plan: LabelPlan, found: list[Passage] | None = None) -> Labelled:
        return calling(lambda caller: label(caller, PAIR, CHUNKS, plan, found or []), endpoint.url)

    return run


def test_every_label_is_asked_for_and_kept(endpoint, labelled) -> None:
    endpoint.grade = 3
    result = labelled(EVERYTHING, FOUND)
    assert result.pair == {**PAIR, "hops_needed": [1, 2], "extra_positives": sorted(item.id for item in FOUND)}
    assert result.evaluation["overall"]["score"] == 8.0 and result.evaluation["answerable"] is True
    assert len(result.asked) == endpoint.calls["quality_judge"] == 4
    assert all(outcome.faults == [] for _, outcome in result.asked)


def test_what_is_not_wanted_is_not_asked(endpoint, labelled) -> None:
    result = labelled(LabelPlan(quality_judge="none"))
    assert result.pair == PAIR and result.asked == [] and sum(endpoint.calls.values()) == 0
    assert result.evaluation["overall"]["score"] is None and "answerable" not in result.evaluation


def test_the_others_see_the_pair_as_the_hops_left_it(endpoint, labelled) -> None:
    endpoint.hops_needed = [2]
    endpoint.supported = False
    result = labelled(EVERYTHING)
    assert result.pair["segment_ids"] == [3] and result.pair["query_type"] == "contextual"
    assert result.idle_hops == "one hop answers it" and result.evaluation["answerable"] is False
    answer_prompt = endpoint.requests[-1]["messages"][0]["content"]
    assert "[3] Fact 3" in answer_prompt and "Fact 1" not in answer_prompt


def test_a_rejected_pair_is_not_asked_about_any_more(endpoint, labelled) -> None:
    endpoint.hops_needed = [1]
    result = labelled(LabelPlan(check_answers=True, hop_check="drop"), FOUND)
    assert result.pair is None and result.idle_hops == "one hop answers it" and len(result.asked) == 1


@pytest.mark.parametrize(
    "answer", ["no JSON", "{}", '{"hops_needed": [9], "passages": [{"number": 7}], "relevance": 5}']
)
def test_a_judge_that_talks_nonsense_loses_no_pair(endpoint, labelled, answer: str) -> None:
    endpoint.misbehave = lambda body, number: (200, {}, endpoint.chat(answer))
    result = labelled(EVERYTHING, FOUND)
    assert result.pair == {**PAIR, "extra_positives": []}
    assert result.evaluation["overall"]["score"] is None and result.evaluation["answerable"] is None
    assert result.evaluation["overall"]["assessment"].startswith("unjudged: ")
    assert all(outcome.faults and not outcome.good for _, outcome in result.asked)
    assert endpoint.calls["quality_judge"] == 8  # each with one repair turn


def test_a_call_that_fails_costs_its_own_label_alone(endpoint, labelled) -> None:
    def fail(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], str] | None:
        return (400, {}, json.dumps({"error": "no"})) if "WRITTEN ANSWER" in json.dumps(body) else None

    endpoint.misbehave = fail
    result = labelled(EVERYTHING)
    assert result.evaluation["answerable"] is None and result.evaluation["overall"]["score"] == 8.0
    assert result.pair["hops_needed"] == [1, 2]

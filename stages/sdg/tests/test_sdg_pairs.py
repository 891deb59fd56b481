import json
from typing import Any

import pytest
from pipeline_sdg import judge, pairs, questions
from pipeline_sdg.artifacts import check as check_artifacts
from pipeline_sdg.artifacts import merge, no_artifacts
from pipeline_sdg.chunking import Window, chunk_document, windows_of
from pipeline_sdg.documents import Document
from pipeline_sdg.pairs import PairRules

from pipeline.schemas.sdg import QUERY_TYPES, REASONING_TYPES, SdgConfig

TEXT = (
    "# Lift pump\n\nThe pump stops at 20 percent. It runs at 70 percent. "
    "L-404 means that the level of the raw water does not sink."
)
L404 = "L-404 means that the level of the raw water does not sink."
RULES = PairRules(2, dict.fromkeys(QUERY_TYPES, 1), dict.fromkeys(REASONING_TYPES, 1), num_sections=1)


def window(per_chunk: int = 1) -> Window:
    document = Document("pump.md", TEXT)
    return windows_of("pump.md", "Pump", chunk_document(document, SdgConfig(sentences_per_chunk=per_chunk)))[0]


def item(**changes: Any) -> dict[str, Any]:
    return {
        "question": "When does the pump stop?",
        "answer": "At 20 percent.",
        "question_complexity": 2,
        "query_type": "contextual",
        "reasoning_type": "factual",
        "segment_ids": [1],
        "hop_count": 1,
        "hop_contexts": [],
        **changes,
    }


def hops(*groups: list[int]) -> list[dict[str, Any]]:
    return [{"hop_number": number, "segment_ids": ids, "summary": "s"} for number, ids in enumerate(groups, 1)]


def checked(*items: Any) -> tuple[list[dict[str, Any]], list[str]]:
    good, faults = pairs.check(json.dumps({"pairs": list(items)}), window(), RULES)
    return good, [fault.reason for fault in faults]


def test_good_pairs_pass_and_are_tidied() -> None:
    multi = item(
        question="Between which levels does the pump run?",
        query_type="multi_hop",
        segment_ids=[2, 1, 2],
        hop_count=2,
        hop_contexts=hops([1], [2]),
    )
    good, faults = checked(item(question_complexity="3", extra=1, hop_count=7), multi)
    assert faults == []
    assert good[0] == item(question_complexity=3)
    assert good[1]["segment_ids"] == [1, 2]
    assert good[1]["hop_count"] == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": ""}, "empty"),
        ({"answer": "  "}, "empty"),
        ({"question": "What does the passage say about pumps?"}, "speaks of the text"),
        ({"question": "When does the pump stop"}, "breaks off"),
        ({"answer": "It stops at the"}, "breaks off"),
        ({"question_complexity": 1}, "question_complexity must be 2 to 5"),
        ({"question_complexity": True}, "question_complexity"),
        ({"query_type": "factual"}, "query_type must be one of"),
        ({"reasoning_type": None}, "reasoning_type must be one of"),
        ({"segment_ids": []}, "segment_ids must be some of [1, 2, 3]"),
        ({"segment_ids": [9]}, "segment_ids must be some of"),
        ({"segment_ids": [1, 9]}, "segment_ids must be some of"),
        ({"query_type": "multi_hop", "hop_count": 2, "hop_contexts": hops([1])}, "hop_count must be their number"),
        ({"query_type": "multi_hop", "hop_count": 4, "hop_contexts": hops([1], [1], [1], [1])}, "1 to 3 hops"),
        ({"query_type": "multi_hop", "hop_count": 2, "hop_contexts": hops([1], [2])}, "union"),
        ({"query_type": "multi_hop", "hop_count": 1, "hop_contexts": hops([8])}, "union"),
    ],
)
def test_each_fault_is_found_and_costs_only_its_pair(change: dict[str, Any], reason: str) -> None:
    good, faults = checked(item(**change), item(question="At what level does the pump run?"))
    assert [pair["question"] for pair in good] == ["At what level does the pump run?"]
    assert reason in faults[0]
    assert faults[-1] == "2 usable pairs are needed, there are 1"


def test_pairs_that_are_no_objects_repeat_or_break_off() -> None:
    good, faults = checked("text", item(), item(question="When does the PUMP stop ?"))
    assert len(good) == 1
    assert "is not an object" in faults[0] and "same as an earlier" in faults[1]
    cut = '{"pairs": [' + json.dumps(item()) + ', {"question": "When'
    good, found = pairs.check(cut, window(), RULES)
    assert len(good) == 1
    assert "not one whole JSON object" in found[0].reason


def test_the_request_names_exact_quotas_without_visual() -> None:
    rules = PairRules(10, {"multi_hop": 3, "structural": 2, "contextual": 2}, dict.fromkeys(REASONING_TYPES, 1))
    request = pairs.exchange(window(), rules, no_artifacts())
    prompt = request.messages[0]["content"]
    assert "exactly 10" in prompt
    assert "- multi_hop: 4\n- structural: 3\n- contextual: 3" in prompt
    assert "visual" not in prompt
    assert "- Segment 3: L-404" in prompt
    assert sum(rules.reasoning_quota().values()) == 10
    assert "multi_hop" not in rules.query_quota(segments=1)


def test_artifacts_are_cut_cleaned_and_merged() -> None:
    reply = {
        "entities": [{"text": "a", "importance": None}, {"text": " "}, 3, {"text": "b"}, {"text": "c"}],
        "themes": 1,
    }
    [found], faults = check_artifacts(json.dumps(reply), 2)
    assert [entry["text"] for entry in found["entities"]] == ["a", "b"]
    assert set(found) == set(no_artifacts()) and faults == []
    assert check_artifacts("nothing", 2)[0] == []
    assert [entry["text"] for entry in merge([found, found])["entities"]] == ["a", "b"]


def scores(score: Any, overall: Any) -> str:
    part = {"score": score, "justification": "j"}
    return json.dumps({**dict.fromkeys(judge.CRITERIA, part), "overall": {"score": overall, "assessment": "a"}})


def test_kinds_of_questions() -> None:
    kinds = [questions.reasoning_type(text) for text in ("Why not?", "How often?", "how to rinse", "What is it?")]
    assert kinds == ["causal", "temporal", "procedural", "factual"]


def test_scores_are_checked() -> None:
    [evaluation], faults = judge.check(scores(7, 7.5))
    assert faults == [] and evaluation["overall"] == {"score": 7.5, "assessment": "a"}
    assert evaluation["clarity"] == {"score": 7, "justification": "j"}
    for score, overall in ((0, 5), (11, 5), ("8", 5), (7.5, 5), (True, 5), (5, 100), (5, None)):
        assert judge.check(scores(score, overall))[0] == []
    assert judge.check("not json")[0] == []


def test_the_judge_sees_the_cited_segments_alone() -> None:
    prompt = judge.exchange(item(segment_ids=[3]), window().chunks).messages[0]["content"]
    assert "[3] L-404" in prompt
    assert "20 percent. " not in prompt.split("QUESTION")[0]


def test_small_models_are_asked_about_one_statement_each() -> None:
    requests = list(questions.exchanges(window(per_chunk=5), 3))
    assert len(requests) == 3
    assert len(list(questions.exchanges(window(per_chunk=5), 1))) == 2  # one to spare
    texts = [statement.text for statement in questions.statements(window(per_chunk=5))]
    assert texts[0] == L404
    assert "The pump stops at 20 percent. It runs at 70 percent." in texts  # "It" needs the sentence before
    assert all("Lift pump" not in text for text in texts)  # the heading is no statement
    assert requests[0].messages[-1] == {"role": "user", "content": f"Statement: {L404}"}
    assert "search box" in requests[2].messages[0]["content"]  # every third asks for the words of a search
    pattern = requests[0].schema["properties"]["question"]["pattern"]
    assert pattern.startswith("^(What does L-404|") and pattern.endswith("\\?$")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ('{"question": "What does L-404 mean?"}', None),
        ('{"question": "When does the pump stop?"}', "has no word of its statement"),
        ('{"question": "Why does the level of the water not sink at night?"}', None),
        ('{"question": "Why does a boat sink in a storm?"}', "speaks of things the source does not"),
        ('{"question": "What does L-405 mean?"}', "has a code or number that the source does not"),
        ('{"question": "How much raw water is 20 percent of the level?"}', "asks for an amount and names one"),
        ('{"question": "How is the level?"}', "is too general"),
        ('{"question": "The level does not sink."}', "is no question"),
        ('{"question": "What does', "answer is not JSON"),
    ],
)
def test_questions_of_small_models_are_checked(reply: str, reason: str | None) -> None:
    shown = window(per_chunk=5)
    good, faults = questions.check(reply, shown, questions.Statement(L404, 1))
    assert [fault.reason for fault in faults] == ([reason] if reason else [])
    if good:
        assert good[0]["answer"] == L404
        assert good[0]["segment_ids"] == [1]

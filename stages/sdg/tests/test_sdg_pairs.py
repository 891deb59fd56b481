import json
from dataclasses import replace
from typing import Any

import pytest
from pipeline_sdg import judge, pairs, questions
from pipeline_sdg.artifacts import as_notes, merge, no_artifacts
from pipeline_sdg.artifacts import check as check_artifacts
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


def hops(*groups: list[int], **changes: Any) -> list[dict[str, Any]]:
    return [
        {"hop_number": number, "segment_ids": ids, "summary": "s", **changes} for number, ids in enumerate(groups, 1)
    ]


def multi(*groups: list[int], **changes: Any) -> dict[str, Any]:
    segment_ids = sorted({number for group in groups for number in group})
    typed = {"query_type": "multi_hop", "segment_ids": segment_ids, "hop_count": len(groups)}
    return {**typed, "hop_contexts": hops(*groups), **changes}


def checked(*items: Any, rules: PairRules = RULES) -> tuple[list[dict[str, Any]], list[str]]:
    good, faults = pairs.check(json.dumps({"pairs": list(items)}), window(), rules)
    return good, [fault.reason for fault in faults]


def test_good_pairs_pass_and_are_tidied() -> None:
    several = item(question="Between which levels does the pump run?", **multi([1], [2], segment_ids=[2, 1, 2]))
    good, faults = checked(item(question_complexity="3", extra=1, hop_count=7), several)
    assert faults == []
    assert good[0] == item(question_complexity=3)
    assert good[1]["segment_ids"] == [1, 2]
    assert good[1]["hop_count"] == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": ""}, "empty"),
        ({"question": 7}, "empty"),
        ({"answer": "  "}, "empty"),
        ({"question": "What does the passage say about pumps?"}, "speaks of the text"),
        ({"question": "When does the pump stop"}, "breaks off"),
        ({"question": "When does it stop?"}, 'does not stand alone: "it"'),
        ({"question": "When does the pump P-77 stop?"}, "the question has what the segments do not: P-77"),
        ({"answer": "It stops at the"}, "the answer breaks off"),
        ({"answer": "At 70 percent."}, "the answer has what the cited segments [1] do not: 70"),
        ({"question_complexity": 1}, "question_complexity must be 2 to 5"),
        ({"question_complexity": True}, "question_complexity"),
        ({"query_type": "factual"}, "query_type must be one of multi_hop, structural, contextual, not 'factual'"),
        ({"query_type": ["multi_hop"]}, "query_type must be one of"),
        ({"reasoning_type": None}, "reasoning_type must be one of"),
        ({"reasoning_type": "visual"}, "reasoning_type must be one of"),
        ({"segment_ids": []}, "segment_ids must be some of [1, 2, 3]"),
        ({"segment_ids": [9]}, "segment_ids must be some of"),
        ({"segment_ids": [1, 9]}, "segment_ids must be some of"),
        (multi([1], hop_count=2), "hop_count must be their number: there are 1, and hop_count is 2"),
        (multi([1], [2], [3], [1, 2]), "1 to 3 hops"),
        (multi([1], [2], hop_contexts="none"), "must be a list of hops"),
        (multi([1], [2], segment_ids=[1]), "union of the hops' segment_ids, [1, 2], not [1]"),
        (multi([8], segment_ids=[1]), "the segment_ids of hop 1 must be some of [1, 2, 3]"),
        (multi([1], [1]), "hops 1 and 2 have the same segments [1]"),
        (multi([1], hop_contexts=hops([1], summary=" ")), "the summary of hop 1 is empty"),
        (multi([1], hop_contexts=hops([1], hop_number=2)), "hop_number must count 1, 2, 3: number 1 has 2"),
    ],
)
def test_each_fault_is_found_and_costs_only_its_pair(change: dict[str, Any], reason: str) -> None:
    good, faults = checked(item(**change), item(question="At what level does the pump run?"))
    assert [pair["question"] for pair in good] == ["At what level does the pump run?"]
    assert len(faults) == 1 and reason in faults[0] and faults[0].startswith("pair 1: ")


def test_pairs_that_are_no_objects_repeat_or_break_off() -> None:
    good, faults = checked("text", item(), item(question="When does the PUMP stop ?"))
    assert len(good) == 1
    assert "is not an object" in faults[0] and "same as an earlier" in faults[1]
    cut = '{"pairs": [' + json.dumps(item()) + ', {"question": "When'
    good, found = pairs.check(cut, window(), RULES)
    assert len(good) == 1
    assert "not one whole JSON object" in found[0].reason


def test_a_window_of_one_passage_gets_no_multi_hop() -> None:
    good, faults = pairs.check(json.dumps({"pairs": [item(**multi([1]))]}), window(per_chunk=5), RULES)
    assert good == [] and "query_type must be one of structural, contextual" in faults[0].reason


def test_visual_is_a_type_only_where_it_is_asked_for() -> None:
    good, _ = checked(item(reasoning_type="visual"), rules=replace(RULES, visual=True))
    assert [pair["reasoning_type"] for pair in good] == ["visual"]


@pytest.mark.parametrize(
    ("question", "style", "reason"),
    [
        ("pump stop level", "keyword", None),
        ("pump", "keyword", "is too short"),
        ("one two pump stop level water lift", "keyword", "must be 2 to 6 words"),
        ("when does the pump stop", "keyword", "must be words for a search box"),
        ("When stops the pump?", "short", None),
        ("The pump is running now, when does the pump stop?", "short", "at most 6 words"),
        ("When does the pump stop", "persona", "breaks off"),
        ("I look after a lift pump. When does it stop?", "persona", None),
        ("When does the pump stop?", "rhyme", "query_style must be one of"),
        ("When does the pump stop?", None, "query_style must be one of"),
    ],
)
def test_questions_are_checked_by_their_style(question: str, style: str | None, reason: str | None) -> None:
    rules = replace(RULES, query_styles={"question": 1, "keyword": 1, "short": 1, "persona": 1})
    good, faults = checked(item(question=question, query_style=style), rules=rules)
    assert [pair["query_style"] for pair in good] == ([] if reason else [style])
    assert (not faults) if reason is None else reason in faults[0]


def test_artifacts_are_cut_cleaned_and_merged() -> None:
    reply = {
        "entities": [{"text": "a", "importance": None}, {"text": " "}, 3, {"text": "b"}, {"text": "c"}],
        "themes": 1,
        "insights": [{"text": ["a"]}, {"text": "x\ny", "description": "d", "importance": "i"}],
    }
    [found], faults = check_artifacts(json.dumps(reply), 2)
    assert [entry["text"] for entry in found["entities"]] == ["a", "b"]
    assert found["insights"] == [{"text": "x y", "description": "d", "importance": "i"}]
    assert set(found) == set(no_artifacts())
    assert sorted(fault.reason for fault in faults) == [
        "entities 2: its text is empty",
        "entities 3: must be an object with text, description, importance",
        "entities 5: at most 2 are wanted",
        "insights 1: text must be a text",
        "themes must be a list",
    ]
    assert check_artifacts("nothing", 2)[0] == []
    assert [entry["text"] for entry in merge([found, found])["entities"]] == ["a", "b"]


def test_the_notes_say_why_an_artifact_matters() -> None:
    first = {"text": "level", "description": "of the water", "importance": "the pump stops by it"}
    second = {"text": "hose", "description": "carries it", "importance": ""}
    notes = as_notes({**no_artifacts(), "entities": [first, second]})
    assert "- entities: level: of the water (the pump stops by it)\n- entities: hose: carries it\n" in notes
    assert as_notes(no_artifacts()) == ""


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
    assert "[3] Lift pump\nL-404" in prompt
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

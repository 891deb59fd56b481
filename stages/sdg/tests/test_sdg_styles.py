"""Styles of questions: slips that people make, and who is asked for what."""

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg import questions, styles
from pipeline_sdg.chunking import Passage, Window

SENTENCES = tuple(
    f"The {name} pump number {number} stops at {number}0 percent of the level."
    for number, name in enumerate(("red", "green", "blue", "white"), 1)
)
WINDOW = Window("a.md", "Pumps", 0, (Passage({"chunk_id": 1, "text": " ".join(SENTENCES)}, SENTENCES),))


def test_only_other_styles_change_a_request() -> None:
    assert not styles.asked_for({"question": 1}) and not styles.asked_for({"question": 1, "typo": 0})
    assert styles.asked_for({"question": 1, "typo": 1}) and styles.asked_for({"keyword": 1})


def test_personas_stand_in_the_instructions() -> None:
    assert "asked by one of these: a nurse; a plumber." in styles.instructions(["a nurse", "a plumber"])
    assert "asked by a person you think of" in styles.instructions([])


def test_a_mistyped_question_has_one_or_two_slips_and_keeps_names_and_numbers() -> None:
    question = "Which pressure does the valve K301 of PumpMaster need before max_flow exceeds 90 litres?"
    typed = styles.mistyped(question)
    assert typed == styles.mistyped(question) != question
    changed = [(a, b) for a, b in zip(question.split(), typed.split(), strict=True) if a != b]
    assert 1 <= len(changed) <= 2
    for word, slip in changed:
        assert word[0] == slip[0] and difflib.SequenceMatcher(None, word, slip).ratio() > 0.6
    for kept in ("K301", "PumpMaster", "max_flow", "90"):
        assert kept in typed


@given(st.text(max_size=60))
def test_any_text_can_be_mistyped(question: str) -> None:
    typed = styles.mistyped(question)
    assert abs(len(typed) - len(question)) <= 2
    assert typed == question or typed.split()[0][:1] == question.split()[0][:1]


def test_all_kinds_of_slips_come_up() -> None:
    asked = [f"When does lantern x{number} start?" for number in range(10, 70)]
    longer = {len(styles.mistyped(question)) - len(question) for question in asked}
    assert longer == {-1, 0, 1}  # missing, swapped or a neighbouring key, doubled


@pytest.mark.parametrize("style", ["question", "keyword", None])
def test_only_the_style_typo_is_mistyped(style: str | None) -> None:
    pair = {"question": "When does the lantern start?", **({"query_style": style} if style else {})}
    assert styles.as_typed(pair) is pair


def test_a_mistyped_pair_keeps_its_clean_question() -> None:
    pair = {"question": "When does the lantern start?", "query_style": "typo"}
    typed = styles.as_typed(pair)
    assert typed["clean_question"] == pair["question"] != typed["question"]


def test_very_small_models_get_the_styles_they_can_write() -> None:
    plain = list(questions.exchanges(WINDOW, 4))
    assert [request.messages for request in questions.exchanges(WINDOW, 4, styles={"question": 3})] == [
        request.messages for request in plain
    ]
    found = questions.in_styles(questions.statements(WINDOW), WINDOW, 4, {"short": 1, "typo": 2, "persona": 1})
    assert sorted((item.style, item.query_style) for item in found) == [
        ("question", "question"),
        ("question", "typo"),
        ("question", "typo"),
        ("search", "keyword"),
    ]
    words = next(item for item in found if item.style == "search")
    [pair], _ = questions.check('{"question": "percent of the level at a stop"}', WINDOW, words)
    assert pair["query_style"] == "keyword"

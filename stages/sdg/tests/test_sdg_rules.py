"""Rules for the wording of questions and answers: everything deterministic."""

import json

import pytest
from pipeline_sdg.identifiers import identifiers, invented, without_list_numbers
from pipeline_sdg.parsing import list_in_reply, parse_object
from pipeline_sdg.wording import (
    dangling_reference,
    ends_sensibly,
    invented_codes,
    problem_of,
    speaks_of_text,
    tidy,
    word_count,
)

SOURCE = "The wiper shuttle makes one trip every 90 minutes. Parameter K301 sets the pause in Steward 3.2."


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("How often does the wiper shuttle make a trip?", None),
        ("What does K301 set in Steward 3.2?", None),
        ("wiper pause?", "is too short"),
        ("What is the purpose of the text?", "speaks of the text instead of the matter"),
        ("What does the author say about the shuttle?", "speaks of the text instead of the matter"),
        ('{"question": "How often does it run?"}', "leaks JSON or markup"),
        ('How often does it run?", "answer": "never"}', "leaks JSON or markup"),
        ("What does rate(trips[5m]) say about {shuttle=3} parts?", None),
        ("1. How often? 2. Which pause does it make?", "is an enumeration"),
        ("How does the shuttle trip and the shuttle trip and the shuttle trip end?", "repeats itself"),
        ("The wiper shuttle makes one trip every 90 minutes?", "copies the source"),
        ("How does the shuttle report its trips and the?", "breaks off"),
        ("How does the shuttle reach dock A?", None),
        ('Which buttons must be held together, "Menu", "Up" or "Reset"?', None),
        ('When I save, "Connection refused" appears: why?', None),
        ('What does ["a", "b"] set? {"pause": 3}', "leaks JSON or markup"),
        ('["How often does it run?"', "leaks JSON or markup"),
        ("What does SELECT * FROM trips return?", None),
        ("I bought the shuttle in 2019. Why does it pause?", None),
        ("Why did trips (lowest in 2020) recover?", None),
        ("- How often does the shuttle trip?", "is an enumeration"),
        ("How often: - the shuttle - the wiper?", "is an enumeration"),
        ("Which holds: 1) the shuttle 2) the wiper?", "is an enumeration"),
        ("How does the red wiper differ from the blue wiper and the green wiper?", "repeats itself"),
    ],
)
def test_wording(question: str, reason: str | None) -> None:
    assert problem_of(question, SOURCE) == reason


def test_a_source_about_documents_may_be_asked_about_documents() -> None:
    assert problem_of("Where does the archive keep the document?", "The archive keeps the document in a vault.") is None


def test_a_word_may_stand_three_times_where_that_is_allowed() -> None:
    compares = "How does the red wiper differ from the blue wiper and the green wiper?"
    twice = "How long does the shuttle run before a pause and how long does the shuttle rest?"
    assert [problem_of(question, SOURCE, repeats=3) for question in (compares, twice)] == [None, None]
    loop = "How does the shuttle trip and the shuttle trip and the shuttle trip end?"
    assert problem_of(loop, SOURCE, repeats=3) == "repeats itself"


def test_talk_of_the_text_is_told_from_a_text_in_the_matter() -> None:
    source = "Restored documents: the newer one is kept. Settings are in JSON."
    assert problem_of("Which version is kept when the document is restored?", source) is None
    assert problem_of("What is the JSON field of the pause?", source) is None
    assert problem_of("Which version is kept according to the document?", source) is not None
    assert problem_of("What does the document say about versions?", source) is not None
    assert speaks_of_text("According to segment 3 of the document, the newer one is kept.", source)
    assert speaks_of_text("The newer one is kept, as the passage says.", source)
    assert not speaks_of_text("The newer document is kept in JSON, in the context of a restore.", source)
    assert speaks_of_text("In the context, the newer one is kept.", source)


def test_codes_and_numbers_that_nobody_mentioned_are_noticed() -> None:
    assert invented_codes("What does K301 set every 90 minutes in Steward 3.2?", SOURCE) == set()
    assert invented_codes("What does K999 set in Steward 3?", SOURCE) == {"k999", "3"}


@pytest.mark.parametrize(
    ("question", "what"),
    [
        ("How does it work?", "it"),
        ("It stops why?", "It"),
        ("Why do they rust?", "they"),
        ("What is this setting for?", "this setting"),
        ("How long do these last?", "these last"),
        ("Those valves leak where?", "Those valves"),
        ("What did the company decide?", "the company"),
        ("Which of the above limits holds at night?", "the above"),
        ("Where is the valve mentioned above kept?", "mentioned above"),
        ("Is it possible to rinse the filter?", None),
        ("What does it mean when the lamp blinks?", None),
        ("Does it matter which net goes back first?", None),
        ("How does the pump report its level?", None),
        ("Which company built the IT room?", None),
        ("What did the company that built the pump decide?", None),
        ("How did the company Aquila begin?", None),
        ("How do those who rent a flat rinse the pump?", None),
        ("IT staff: which port is open?", None),
        ("What changed this year?", None),
        ("Where is that stored?", None),
        ("What is the company car policy for part-time staff?", None),
        ("What is the study room limit?", None),
        ("Does the company car policy cover fuel?", None),
        ("Where is the company located?", "the company"),
        ("What did the study find about pumps?", "the study"),
        ("What is the company's goal?", "the company"),
    ],
)
def test_a_question_names_what_it_is_about(question: str, what: str | None) -> None:
    assert dangling_reference(question) == what


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("K301 sets the pause in Steward 3.2.", []),
        ("K302 sets the pause in Steward 3.5.", ["K302", "3.5"]),
        ("The limit is 1,200 rpm, or 1200 RPM.", []),
        ("The 1.2 limit, the 20 limit and the 00 limit", ["1.2", "20", "00"]),
        ("It weighs 5mg, that is 5 mg.", []),
        ("It weighs 6mg, that is 6 mg.", ["6mg", "6"]),
        ("All 3 filters and 2 pipes", []),
        ("It takes 3 minutes and 11 pipes", ["3", "11"]),
        ("Twelve o'clock is 12:00", ["12:00"]),
        ("There are 12 lamps, number 12.", []),
        ("maxFlow, max_flow and MAX_FLOW are the same as maxDrain", ["max_flow", "MAX_FLOW", "maxDrain"]),
        ("The wash drum pressure (WDP) is not the WXP.", ["WXP"]),
        ("v3.2 and version 3.2 of the K301-type", []),
        ("Steward3", ["Steward3"]),
        ("产品有7个接口", ["7"]),
        ("产品有5个接口", []),
        ("A plain sentence. I say so.", []),
        ("K-301 and K301, the WiFi of Steward 3.2 with max-Flow", []),
        ("1'200 or 1.200 or 1 200 rpm, the 2nd pressure, 40,000 lamps, 40000 lamps", []),
        ("the ports 80 443", ["80", "443"]),
    ],
)
def test_identifiers_must_stand_in_the_source(text: str, missing: list[str]) -> None:
    source = "K301 sets the pause in Steward 3.2: at 1,200 rpm twelve lamps, 5 mg, maxFlow. The wash drum pressure."
    source += " Wi-Fi: the second of 40 thousand."
    assert invented(text, "Title", source) == missing


def test_identifiers_are_words_with_digits_and_names_in_code() -> None:
    text = "Set max_flow of PumpMaster, K301 or E-21 to 90; OK? The USA's i18n is plain."
    assert identifiers(text) == {"max_flow", "PumpMaster", "K301", "E-21", "90", "OK", "USA's", "i18n"}


def test_numbers_of_a_list_are_no_numbers_of_the_matter() -> None:
    assert without_list_numbers("1. Hold Menu. 2. Press Up.").split() == ["Hold", "Menu.", "Press", "Up."]
    assert without_list_numbers("Step 1: hold Menu. Step 2: press Up.").split() == ["hold", "Menu.", "press", "Up."]
    assert without_list_numbers("It takes 2. Not 3. Never 1. more.") == "It takes 2. Not 3. Never 1. more."


def test_words_are_counted_in_every_script() -> None:
    texts = ("the wiper pause", "网关的空闲超时", "सत्र बंद करता है", "เกตเวย์จะปิด", "MK-1210 limit")
    assert [word_count(text) for text in texts] == [3, 3, 4, 6, 2]


def test_tidy_and_endings() -> None:
    assert tidy('  2) "How often\n does it run?" ') == "How often does it run?"
    assert tidy("Question 3: Why?") == "Why?"
    assert ends_sensibly("It ends here.)") and not ends_sensibly("It ends in the")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        'Here you are:\n```json\n{"a": 1}\n```\nDone.',
        '<think>{"no": 1}</think>\n{"a": 1}',
        '  {"a": 1} trailing',
    ],
)
def test_json_is_found_wherever_it_stands(text: str) -> None:
    assert parse_object(text) == {"a": 1}


@pytest.mark.parametrize("text", ["", "no json", '{"a": ', "[1, 2]", "```json\n{broken\n```"])
def test_no_json_is_none(text: str) -> None:
    assert parse_object(text) is None


def test_whole_items_of_a_cut_off_list_are_saved() -> None:
    assert list_in_reply('{"pairs": [{"q": 1}, {"q": 2}, {"q": "brok', "pairs") == ([{"q": 1}, {"q": 2}], False)
    assert list_in_reply('{"pairs": []}', "pairs") == ([], True)
    assert list_in_reply("nothing", "pairs") == ([], False)


def test_whatever_a_model_wrote_can_be_written_as_strict_json() -> None:
    text = '{"a": [NaN, -Infinity, 1e999, 2.5, "\\ud83d x", "\\ud83d\\ude00"], "\\ud83d": 1}'
    expected = {"a": [None, None, None, 2.5, "? x", "\U0001f600"], "?": 1}
    assert parse_object(text) == expected
    json.dumps(parse_object(text), allow_nan=False, ensure_ascii=False).encode()
    assert list_in_reply('{"pairs": [NaN, {"q": 1e999}, {"q": "\\ud83d"}, {"q"', "pairs")[0] == [
        None,
        {"q": None},
        {"q": "?"},
    ]


def test_what_nests_too_deep_is_no_answer() -> None:
    deep = '{"a": ' * 60 + "1" + "}" * 60
    assert parse_object(deep) is None
    assert list_in_reply('{"pairs": [1, ' + deep, "pairs") == ([1], False)
    assert parse_object('{"a": ' * 20 + "1" + "}" * 20) is not None

"""Rules for the wording of questions and answers: everything deterministic."""

import pytest
from pipeline_sdg.identifiers import identifiers, invented
from pipeline_sdg.parsing import list_in_reply, parse_object
from pipeline_sdg.wording import dangling_reference, ends_sensibly, invented_codes, problem_of, tidy

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
    ],
)
def test_wording(question: str, reason: str | None) -> None:
    assert problem_of(question, SOURCE) == reason


def test_a_source_about_documents_may_be_asked_about_documents() -> None:
    assert problem_of("Where does the archive keep the document?", "The archive keeps the document in a vault.") is None


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
    ],
)
def test_identifiers_must_stand_in_the_source(text: str, missing: list[str]) -> None:
    source = "K301 sets the pause in Steward 3.2: at 1,200 rpm twelve lamps, 5 mg, maxFlow. The wash drum pressure."
    assert invented(text, "Title", source) == missing


def test_identifiers_are_words_with_digits_and_names_in_code() -> None:
    text = "Set max_flow of PumpMaster, K301 or E-21 to 90; OK? The USA's i18n is plain."
    assert identifiers(text) == {"max_flow", "PumpMaster", "K301", "E-21", "90", "OK", "USA's", "i18n"}


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

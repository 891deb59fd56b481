"""Quotas, wording rules: everything deterministic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.parsing import list_in_reply, parse_object
from pipeline_sdg.quotas import largest_remainder, without
from pipeline_sdg.wording import ends_sensibly, invented_codes, problem_of, tidy

SOURCE = "The wiper shuttle makes one trip every 90 minutes. Parameter K301 sets the pause in Steward 3.2."
weights = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 20), min_size=1).filter(
    lambda counts: sum(counts.values()) > 0
)


@given(weights, st.integers(0, 200))
def test_quotas_sum_exactly_and_stay_within_one_of_their_share(counts: dict[str, int], total: int) -> None:
    shares = largest_remainder(counts, total)
    assert sum(shares.values()) == total
    assert set(shares) == set(counts)
    for name, count in counts.items():
        exact = count * total / sum(counts.values())
        assert exact - 1 < shares[name] < exact + 1
        assert count or not shares[name]


def test_the_documented_quota_is_rescaled_to_ten() -> None:
    assert largest_remainder({"multi_hop": 3, "structural": 2, "contextual": 2}, 10) == {
        "multi_hop": 4,
        "structural": 3,
        "contextual": 3,
    }
    with pytest.raises(ValueError, match="positive"):
        largest_remainder({"a": 0}, 3)


def test_a_dropped_type_gives_its_share_to_the_others() -> None:
    assert without({"visual": 1, "causal": 2}, "visual") == {"causal": 2}
    assert without({"visual": 1, "causal": 0}, "visual") == {"causal": 1}


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

"""Who gets how many places, and that the types take turns over a corpus."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.chunking import Passage, Window
from pipeline_sdg.pair_rules import PairRules
from pipeline_sdg.quotas import in_blocks, in_turn, largest_remainder, remaining, rotating_shares, without

from pipeline.schemas.sdg import QUERY_TYPES, REASONING_TYPES

DOCUMENTED = {"multi_hop": 3, "structural": 2, "contextual": 2}
RULES = PairRules(10, DOCUMENTED, dict.fromkeys(REASONING_TYPES, 1), visual=True)
weights = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 20), min_size=1).filter(
    lambda counts: sum(counts.values()) > 0
)


def window(document: str = "a.md", index: int = 0, passages: int = 3) -> Window:
    chunks = [{"chunk_id": number, "text": f"Text {number}."} for number in range(1, passages + 1)]
    return Window(document, "A", index, tuple(Passage(chunk, (chunk["text"],)) for chunk in chunks))


@given(weights, st.integers(0, 200), st.integers(0, 10**9))
def test_quotas_sum_exactly_and_stay_within_one_of_their_share(counts: dict[str, int], total: int, turn: int) -> None:
    for shares in (largest_remainder(counts, total), rotating_shares(counts, total, turn)):
        assert sum(shares.values()) == total
        assert set(shares) == set(counts)
        for name, count in counts.items():
            exact = count * total / sum(counts.values())
            assert exact - 1 < shares[name] < exact + 1
            assert count or not shares[name]


@given(weights, st.integers(1, 20))
def test_a_whole_round_of_turns_gives_every_type_exactly_its_share(counts: dict[str, int], total: int) -> None:
    whole = sum(counts.values())
    rounds = Counter[str]()
    for turn in range(whole):
        rounds.update(rotating_shares(counts, total, turn))
    assert rounds == Counter({name: count * total for name, count in counts.items()})


def test_the_documented_quota_is_rescaled_to_ten() -> None:
    expected = {"multi_hop": 4, "structural": 3, "contextual": 3}
    assert largest_remainder(DOCUMENTED, 10) == rotating_shares(DOCUMENTED, 10, turn=0) == expected
    for shares in (largest_remainder, lambda counts, total: rotating_shares(counts, total, 0)):
        with pytest.raises(ValueError, match="positive"):
            shares({"a": 0}, 3)


def test_a_dropped_type_gives_its_share_to_the_others() -> None:
    assert without({"visual": 1, "causal": 2}, "visual", REASONING_TYPES) == {"causal": 2}
    assert without({"visual": 1, "causal": 0}, "visual", REASONING_TYPES) == {"causal": 1}


def test_a_window_that_cannot_carry_the_only_type_gets_the_others_in_equal_shares() -> None:
    rules = PairRules(6, {"multi_hop": 1}, {"visual": 1})
    slots = rules.slots(window(passages=1))
    assert Counter(slot.query_type for slot in slots) == {"structural": 3, "contextual": 3}
    assert {slot.reasoning_type for slot in slots} == set(REASONING_TYPES) - {"visual"}
    assert {slot.query_type for slot in rules.slots(window(passages=2))} == {"multi_hop"}


@given(weights, st.integers(0, 30))
def test_names_stand_as_often_as_the_quota_says(counts: dict[str, int], turn: int) -> None:
    assert Counter(in_blocks(counts, turn)) == Counter(in_turn(counts, turn)) == +Counter(counts)


@given(weights, st.lists(st.sampled_from("abcdefgx"), max_size=12), st.integers(0, 20))
def test_what_is_left_of_a_quota_fills_the_places(counts: dict[str, int], used: list[str], total: int) -> None:
    left = remaining(counts, used, total)
    assert sum(left.values()) == total and all(number >= 0 for number in left.values())


def test_places_have_exact_shares_of_every_field_and_all_combinations() -> None:
    slots = replace(RULES, num_pairs=21, query_counts=dict.fromkeys(QUERY_TYPES, 1)).slots(window())
    assert Counter(slot.query_type for slot in slots) == dict.fromkeys(QUERY_TYPES, 7)
    assert Counter(slot.reasoning_type for slot in slots) == dict.fromkeys(REASONING_TYPES, 3)
    assert len(set(slots)) == 21
    assert {slot.query_style for slot in slots} == {"question"}


def test_with_few_pairs_the_types_take_turns_over_the_corpus() -> None:
    rules = replace(RULES, num_pairs=3, query_styles={"question": 2, "keyword": 1})
    slots = [slot for number in range(100) for slot in rules.slots(window(f"{number}.md"))]
    reasons = Counter(slot.reasoning_type for slot in slots)
    assert set(reasons) == set(REASONING_TYPES) and all(30 <= count <= 56 for count in reasons.values())  # 300 / 7 = 43
    queries = Counter(slot.query_type for slot in slots)
    assert 110 <= queries["multi_hop"] <= 150  # 129
    assert Counter(slot.query_style for slot in slots) == {"question": 200, "keyword": 100}
    assert len({(slot.query_type, slot.reasoning_type) for slot in slots}) == 21
    several = [slot for index in range(7) for slot in rules.slots(window(index=index))]
    assert Counter(slot.reasoning_type for slot in several) == dict.fromkeys(REASONING_TYPES, 3)
    assert Counter(slot.query_type for slot in several) == {"multi_hop": 9, "structural": 6, "contextual": 6}


def test_what_a_window_cannot_carry_is_not_asked_for() -> None:
    alone = replace(RULES, visual=False).slots(window(passages=1))
    assert {slot.query_type for slot in alone} == {"structural", "contextual"}
    assert "visual" not in {slot.reasoning_type for slot in alone} and len(alone) == 10


def test_further_places_are_those_of_the_whole_less_what_is_there() -> None:
    every = RULES.slots(window())
    before = [{"query_type": slot.query_type, "reasoning_type": slot.reasoning_type} for slot in every[:6]]
    further = RULES.slots(window(), before)
    assert Counter(slot.query_type for slot in further) == Counter(slot.query_type for slot in every[6:])
    assert Counter(slot.reasoning_type for slot in further) == Counter(slot.reasoning_type for slot in every[6:])
    lopsided = RULES.slots(window(), [{"query_type": "multi_hop", "reasoning_type": "causal"}] * 8)
    assert len(lopsided) == 2 and {slot.query_type for slot in lopsided} == {"structural", "contextual"}
    assert RULES.slots(window(), before * 2) == []


def test_a_document_has_the_same_places_in_any_corpus() -> None:
    assert RULES.slots(window("b.md", 2)) == RULES.slots(window("b.md", 2))
    assert RULES.slots(window("bad\udcff.md"))  # a name that is no UTF-8

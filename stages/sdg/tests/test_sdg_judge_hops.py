"""Hop necessity: which hops a multi-hop question needs, and what becomes of it."""

import json
from typing import Any

import pytest
from pipeline_sdg import hops

CHUNKS = [{"chunk_id": number, "text": f"Fact {number}."} for number in range(1, 6)]


def pair(*groups: list[int], kind: str = "multi_hop") -> dict[str, Any]:
    contexts = [
        {"hop_number": number, "segment_ids": ids, "summary": f"s{ids}"} for number, ids in enumerate(groups, 1)
    ]
    return {
        "question": "Why?",
        "answer": "So.",
        "query_type": kind,
        "segment_ids": sorted({segment for ids in groups for segment in ids}) or [1],
        "hop_count": len(groups) or 1,
        "hop_contexts": contexts,
    }


def test_each_hop_is_listed_with_its_segments() -> None:
    prompt = hops.exchange(pair([1], [3, 4]), CHUNKS).messages[0]["content"]
    assert "HOP 1\n[1] Fact 1.\n\nHOP 2\n[3] Fact 3.\n\n[4] Fact 4." in prompt
    assert "Fact 2." not in prompt and "Fact 5." not in prompt
    titled = [{**chunk, "title": "Facts > More"} for chunk in CHUNKS]
    assert "HOP 1\n[1] Facts > More\nFact 1." in hops.exchange(pair([1], [3]), titled).messages[0]["content"]


def test_where_it_is_plain_nobody_is_asked() -> None:
    assert hops.settled(pair(kind="contextual")) == [] and hops.exchange(pair(kind="contextual"), CHUNKS) is None
    assert hops.settled(pair([2])) == [1] and hops.exchange(pair([2]), CHUNKS) is None
    assert hops.settled(pair([2], [2])) == [1]
    assert hops.settled(pair([2], [3])) is None


@pytest.mark.parametrize(
    ("needed", "found"),
    [([2], [[2]]), (["2", 1.0, 1], [[1, 2]]), ([], []), ([4], []), ([0], []), ([1, True], []), (1, []), (None, [])],
)
def test_the_hops_named_must_exist(needed: Any, found: list[list[int]]) -> None:
    good, faults = hops.check(json.dumps({"hops": [], "hops_needed": needed, "reason": ""}), 3)
    assert good == found
    assert [fault.reason for fault in faults] == (
        [] if found else ["hops_needed must list at least one of the hops 1 to 3, and no other"]
    )


def test_a_pair_that_needs_all_its_hops_stays() -> None:
    for mode in ("keep", "relabel", "drop"):
        assert hops.apply(pair([1], [2]), [1, 2], mode) == ({**pair([1], [2]), "hops_needed": [1, 2]}, "")
        assert hops.apply(pair(kind="structural"), [], mode) == (pair(kind="structural"), "")


def test_one_hop_is_kept_relabelled_or_dropped() -> None:
    whole = pair([1, 4], [2])
    assert hops.apply(whole, [1], "keep") == ({**whole, "hops_needed": [1]}, "one hop answers it")
    relabelled, found = hops.apply(whole, [1], "relabel")
    expected = {
        "query_type": "contextual",
        "segment_ids": [1, 4],
        "hop_count": 1,
        "hop_contexts": [],
        "hops_needed": [1],
    }
    assert relabelled == {**whole, **expected} and found == "one hop answers it"
    assert hops.apply(whole, [1], "drop") == (None, "one hop answers it")
    assert hops.apply(pair([3]), [1], "drop")[0] is None  # multi-hop in name only


def test_an_idle_hop_is_taken_away_and_the_others_numbered_anew() -> None:
    for mode in ("relabel", "drop"):
        shorter, found = hops.apply(pair([1], [2], [2, 5]), [1, 3], mode)
        assert found == "2 of its 3 hops answer it"
        assert shorter["segment_ids"] == [1, 2, 5] and shorter["hop_count"] == 2
        assert [(hop["hop_number"], hop["segment_ids"]) for hop in shorter["hop_contexts"]] == [(1, [1]), (2, [2, 5])]
        assert shorter["query_type"] == "multi_hop" and shorter["hops_needed"] == [1, 3]

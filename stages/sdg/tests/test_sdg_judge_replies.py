"""No reply of a judge, however broken, does more than be refused: checks never raise and never let a wrong value in."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_sdg import answerability, hops, judge, relevance

from pipeline.records.passages import Passage

SEGMENT = "The pump stops at 20 percent."
BATCH = [Passage(f"d_{number}", f"Passage {number}.") for number in range(3)]
SCORED = {name: {"justification": "j", "score": 7} for name in judge.CRITERIA}
GOOD: dict[str, dict[str, Any]] = {
    "judge": {**SCORED, "overall": {"assessment": "a", "score": 7}, "improvements": "i"},
    "answerable": {"evidence": ["stops at 20"], "answer": "At 20.", "answerable": True, "supported": False},
    "hops": {"hops": [{"hop_number": 1, "adds": "x"}], "hops_needed": [2, 1], "reason": "r"},
    "relevance": {"passages": [{"number": number, "reason": "r", "grade": number} for number in (1, 2, 3)]},
}
CHECKS: dict[str, Callable[[str], tuple[list[Any], list[Any]]]] = {
    "judge": judge.check,
    "answerable": lambda reply: answerability.check(reply, [SEGMENT]),
    "hops": lambda reply: hops.check(reply, 3),
    "relevance": lambda reply: relevance.check(reply, BATCH),
}
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 15) | st.floats() | st.text(max_size=6) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["score", "grade", "number", "x"]), inner)
    ),
    max_leaves=6,
)


def sound(name: str, part: Any) -> bool:
    if name == "judge":
        scores = [part[criterion]["score"] for criterion in judge.CRITERIA]
        highest = min(part["accuracy"]["score"], part["context_support"]["score"]) + judge.LEEWAY
        return all(score in range(1, 11) for score in scores) and 1 <= part["overall"]["score"] <= min(10, highest)
    if name == "answerable":
        kinds = (type(part["answerable"]), type(part["supported"]))
        return kinds == (bool, bool) and (part["answerable"] or not part["supported"])
    if name == "hops":
        return bool(part) and part == sorted(set(part)) and set(part) <= {1, 2, 3}
    return part.passage in {passage.id for passage in BATCH} and part.grade in (0, 1, 2, 3)


def assert_sound(name: str, reply: str) -> None:
    good, faults = CHECKS[name](reply)
    assert all(sound(name, part) for part in good)
    assert faults or len(good) == (len(BATCH) if name == "relevance" else 1)
    json.dumps(
        [part if name != "relevance" else [part.passage, part.grade] for part in good],
        allow_nan=False,
        ensure_ascii=False,
    ).encode()
    str([fault.reason for fault in faults]).encode()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_values_that_are_wrong_are_refused(name: str, data: st.DataObject) -> None:
    reply = json.loads(json.dumps(GOOD[name]))
    where = data.draw(st.sampled_from(sorted(reply)))
    inside = reply[where]
    if isinstance(inside, dict) and data.draw(st.booleans()):
        inside[data.draw(st.sampled_from(sorted(inside)))] = data.draw(values)
    elif isinstance(inside, list) and inside and data.draw(st.booleans()):
        inside[data.draw(st.integers(0, len(inside) - 1))] = data.draw(values)
    else:
        reply[where] = data.draw(values)
    assert_sound(name, json.dumps(reply))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.integers(0, 400), st.text(max_size=8))
def test_replies_that_break_off_are_refused_or_saved(name: str, length: int, rest: str) -> None:
    assert_sound(name, json.dumps(GOOD[name])[:length] + rest)


def test_proper_replies_pass() -> None:
    for name, reply in GOOD.items():
        good, faults = CHECKS[name](f"Here it is:\n```json\n{json.dumps(reply)}\n```")
        assert faults == [] and good, name

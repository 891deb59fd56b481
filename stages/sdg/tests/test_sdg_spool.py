import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_sdg.spool import Slots, Spool

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(values, max_size=8), st.lists(values, max_size=4))
def test_what_was_appended_comes_back(tmp_path: Path, first: list[object], more: list[object]) -> None:
    spool = Spool(tmp_path)
    assert [spool.append(value) for value in first] == list(range(len(first)))
    assert list(spool) == first
    for value in more:  # reading and writing take turns
        spool.append(value)
        assert spool[len(spool) - 1] == value
    assert list(spool) == first + more and len(spool) == len(first + more)
    assert os.listdir(tmp_path) == []


def test_a_number_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append("x")
    for number in (1, -1):
        with pytest.raises(IndexError):
            spool[number]


def test_half_a_surrogate_pair_survives(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append("\ud83d")
    assert spool[0] == "\ud83d"


def test_the_last_value_of_a_number_counts(tmp_path: Path) -> None:
    slots = Slots(tmp_path, 3)
    slots[2], slots[0] = "c", "a"
    slots[2] = "C"
    assert list(slots) == ["a", None, "C"] and len(slots) == 3
    with pytest.raises(IndexError):
        slots[3] = "d"
    assert list(Slots(tmp_path, 0)) == []

"""A model that is not trained yet, and what stands in for it."""

from __future__ import annotations

import logging

import pytest

from pipeline.checkpoints import existing_model
from pipeline.errors import PipelineError

SMALL = "embedded:all-MiniLM-L6-v2"


def test_a_model_that_is_there_or_is_no_folder_is_taken_as_named(tmp_path):
    for wanted in (str(tmp_path), SMALL, "org/name"):
        assert existing_model("base_model", wanted, "org/other", insist=False) == wanted


def test_another_stands_in_for_a_folder_that_is_not_there_and_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        assert existing_model("base_model", f"{tmp_path}/not-yet", SMALL, insist=False) == SMALL
    assert f"base_model {tmp_path}/not-yet does not exist: {SMALL} stands in" in caplog.text


@pytest.mark.parametrize(("stand_in", "insist"), [(None, False), (SMALL, True)])
def test_a_missing_folder_is_an_error_if_nothing_may_stand_in(tmp_path, stand_in, insist):
    with pytest.raises(PipelineError, match=r"base_model: .*not-yet does not exist"):
        existing_model("base_model", f"{tmp_path}/not-yet", stand_in, insist)

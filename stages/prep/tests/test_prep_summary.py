from __future__ import annotations

import logging

import numpy as np
import pytest
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.sdg_records import convert
from pipeline_prep.mining.report import percentiles
from pipeline_prep.mining.task import Mined
from pipeline_prep.prepared import Prepared, Side
from pipeline_prep.questions import Converted
from pipeline_prep.split import Splits
from pipeline_prep.summary import headline, tell, warn_of_boilerplate

from pipeline.contract import EncodingContract
from pipeline.records.sources.ragged import Ragged
from pipeline.records.training import TrainingRow

LOG = logging.getLogger("prep-summary-test")


def converted(*records) -> Converted:
    return convert([("here", item) for item in records], 7.0, Funnel())


def test_boilerplate_that_ties_documents_together_is_named(record, caplog):
    few = [record(f"{n}.txt", [f"own {n}", "All rights reserved."], []) for n in range(3)]
    warn_of_boilerplate(LOG, converted(*few))
    assert "3 of 3 documents hold the same passage" in caplog.text and "All rights reserved." in caplog.text
    caplog.clear()
    warn_of_boilerplate(LOG, converted(*few[:2], record("x.txt", ["other"], [])))
    assert not caplog.text


@pytest.mark.parametrize("wanted", [1, 5])
def test_what_is_too_little_is_warned_of(record, mining_task, caplog, wanted):
    scores = np.array([0.5], np.float32)
    task = mining_task(["one", "two"], ["Which?"], [[0]])
    mined = Mined(
        wanted,
        Ragged.of_rows([[1]]),
        scores,
        np.zeros(1, np.uint8),
        scores,
        Ragged.of_rows([[]]),
        scores[:0],
        {"known": 3},
    )
    side = Side(["a row"], task, mined)
    splits = Splits({"train": [], "val": [], "test": ["a question"]}, frozenset())
    contract, source = EncodingContract(), converted(record("a.txt", ["one"], []))
    made = Prepared(Funnel(), source, splits, side, Side([], task, mined), [], contract)
    made.train.rows[0] = TrainingRow("q", "Which?", "c", ["d"], [])
    tell(LOG, made, max_pos_docs=5)
    assert "only 1 test questions (< 50)" in caplog.text and "only 0 training rows (< 100)" in caplog.text
    short = "1 of 1 training questions have fewer than 5 hard negatives" in caplog.text
    assert short == (wanted == 5)
    assert dict(headline(made))["median similarity"] == "positive 0.5, hard negative 0.5"


def test_the_funnel_says_what_was_lost_and_why():
    funnel = Funnel()
    funnel.close("read", 3)
    funnel.reject("no segments", "a.json: record 0", "Which?")
    funnel.reject("no segments", "a.json: record 1", "Who?", "detail")
    funnel.close("kept", 1, "2 passages")
    assert [line.split() for line in funnel.lines()] == [
        ["read", "3"],
        ["kept", "1", "2", "passages"],
        ["-2", "no", "segments", "e.g.", "'Which?'"],
    ]
    assert funnel.headline == "3 read → 1 kept"
    assert funnel.to_json()[1] == {"step": "kept", "left": 1, "lost": {"no segments": 2}, "note": "2 passages"}
    assert len(funnel.rejected) == 2


def test_percentiles_of_nothing_are_nothing():
    assert percentiles(np.array([], np.float32)) == {}
    assert percentiles(np.array([0.0, 1.0], np.float32))["p50"] == 0.5
